import t from "tap";
import { examinations } from "../../src/host/checks.ts";
import { readAdvice } from "../../src/report/advice.ts";
import { headline } from "../../src/report/headline.ts";
import type { Result } from "../../src/report/result.ts";
import { explain, formatResults } from "../../src/report/text.ts";
import {
	hostileHost,
	hostileTexts,
	lockedHost,
	openHost,
	withoutRoot,
} from "../support/exampleResults.ts";

const steering = /(?![\n\t])[\p{Cc}\p{Cf}\p{Cs}\u2028\u2029]/u;

function withEnvironment(
	t: { teardown(action: () => unknown): unknown },
	values: Readonly<Record<string, string | undefined>>,
) {
	const before = { ...process.env };
	t.teardown(() => {
		process.env = before;
	});
	for (const [name, value] of Object.entries(values)) {
		if (value === undefined) delete process.env[name];
		else process.env[name] = value;
	}
}

t.test(
	"the worst stands first, a line each, and how to mend it below",
	async (t) => {
		const lines = formatResults(openHost, { colour: false }).split("\n");
		t.same(lines.slice(0, 4), [
			"critical  internet.funnel        https://mini.tail1a2b.ts.net is on the internet and leads to http://127.0.0.1:11434",
			"          fix: sudo tailscale funnel --https=443 off",
			"critical  ollama.listening       0.0.0.0:11434 (ollama, pid 812)",
			"          fix: sudo llamagate setup --only ollama",
		]);
		const marks = lines
			.filter((line) => /^\S/.test(line))
			.map((line) => line.slice(0, 8).trim());
		t.same(marks, [
			...Array(2).fill("critical"),
			...Array(4).fill("high"),
			"warn",
			"info",
			"unknown",
			"ok",
			...Array(4).fill("not here"),
		]);
	},
);

t.test("a fix of several lines stays below its finding", async (t) => {
	t.match(
		formatResults(openHost, { colour: false }),
		/\n {10}fix: docker stop .*\n {15}docker run .*\nhigh /,
	);
});

t.test(
	"what is unknown says why, and what is in order what holds",
	async (t) => {
		const text = formatResults(withoutRoot, { colour: false });
		t.match(
			text,
			/^unknown +firewall\.active +UFW is active and drops what no rule allows\? the state of UFW can be read by root only$/m,
		);
		t.match(text, /^ok +tailscale\.running +Tailscale is up$/m);
		t.notMatch(text, "fix:");
	},
);

t.test("a finding without evidence says what is not so", async (t) => {
	const [result] = openHost;
	t.match(
		formatResults([{ ...(result as Result), evidence: [] }], { colour: false }),
		"Not so: Tailscale Funnel publishes nothing of this host",
	);
});

const unseen = (id: string, why: string, fix?: string): Result => ({
	...(withoutRoot[0] as Result),
	...{ id, state: "unknown", evidence: [why] },
	...(fix === undefined ? {} : { fix }),
});

t.test("a reason of several lines does not end at its colon", async (t) => {
	const why = "c.json is not usable:\n  line 3: a comma is missing before this";
	const told = "c.json is not usable: line 3: a comma is missing before this";
	t.match(
		formatResults([unseen("a.one", why), unseen("a.two", why)], {
			colour: false,
		}),
		`2 checks: ${told}`,
	);
	t.match(formatResults([unseen("a.one", why)], { colour: false }), told);
});

t.test("what one reason hides stands together, and root on top", async (t) => {
	const text = formatResults(
		[
			unseen("a.one", "only root can see this", "sudo llamagate doctor"),
			unseen("a.two", "whose it is only root can see", "sudo llamagate doctor"),
			unseen("b.one", "nftables is not installed: sudo apt install nftables"),
			unseen(
				"b.two",
				"nftables is not installed: sudo apt install nftables",
				"sudo apt install nftables",
			),
			unseen("c.one", "tailscaled does not say"),
			...lockedHost.slice(0, 2),
		],
		{ colour: false },
	);
	t.match(text, /^Run with sudo: 2 of 7 checks need it\.\n\n/);
	t.match(
		text,
		`unknown   2 checks: only root can see this
          a.one, a.two
          to find out: sudo llamagate doctor
unknown   2 checks: nftables is not installed: sudo apt install nftables
          b.one, b.two
          to find out: sudo apt install nftables
unknown   c.one`,
	);
	t.equal(text.split("apt install nftables").length, 3, "said once");
	t.notMatch(formatResults(lockedHost), "sudo:");
});

t.test("a finding is a sentence of its own", async (t) => {
	const says = (...evidence: string[]) =>
		formatResults([{ ...(openHost[0] as Result), evidence }], {
			colour: false,
		});
	t.match(says("the key short has expired"), / The key short has expired\n/);
	t.match(says("tailscaled does not run"), / tailscaled does not run\n/);
	t.match(says("/etc/x is open"), / \/etc\/x is open\n/);
});

t.test("words and commands are taken apart", async (t) => {
	for (const [text, wanted] of [
		["sudo llamagate setup --only ollama", ["$"]],
		[
			"take X out of /etc/x, then: sudo systemctl daemon-reload && sudo systemctl restart x",
			[
				"take X out of /etc/x, then:",
				"$ sudo systemctl daemon-reload && sudo systemctl restart x",
			],
		],
		[
			"sudo llamagate setup --only ollama; where the unit is right already: sudo systemctl restart ollama",
			[
				"$ sudo llamagate setup --only ollama",
				"where the unit is right already:",
				"$ sudo systemctl restart ollama",
			],
		],
		[
			"sudo ufw status numbered, then: sudo ufw delete NUMBER",
			["$ sudo ufw status numbered", "then:", "$ sudo ufw delete NUMBER"],
		],
		[
			"On the server, at once: sudo llamagate setup. Until then: sudo systemctl stop ollama",
			[
				"On the server, at once:",
				"$ sudo llamagate setup",
				"Until then:",
				"$ sudo systemctl stop ollama",
			],
		],
		[
			"On the server: systemctl status llamagate, then sudo llamagate check",
			[
				"On the server:",
				"$ systemctl status llamagate",
				"then",
				"$ sudo llamagate check",
			],
		],
		["end that program (sudo ss -ltnp)", ["end that program (sudo ss -ltnp)"]],
		[
			"put it in front (on the server: sudo llamagate setup), and look: sudo ss -l",
			[
				"put it in front (on the server: sudo llamagate setup), and look:",
				"$ sudo ss -l",
			],
		],
		["a\nsudo b\n  c", ["a", "$ sudo b", "$   c"]],
		[
			"curl -fsSL https://ollama.com/install.sh | sh",
			["$ curl -fsSL https://ollama.com/install.sh | sh"],
		],
	] as const)
		t.strictSame(
			readAdvice(text).map(({ kind, text }) =>
				kind === "command" ? `$ ${text}` : text,
			),
			wanted[0] === "$" ? [`$ ${text}`] : wanted,
		);
});

t.test("no advice of doctor's loses a word", async (t) => {
	const bare = (text: string) => text.replace(/[\s,;.]+/g, " ").trim();
	for (const { id, fix } of examinations)
		t.equal(
			bare(
				readAdvice(fix)
					.map(({ text }) => text)
					.join(" "),
			),
			bare(fix),
			id,
		);
});

t.test("nothing at all is an empty table", async (t) => {
	t.equal(formatResults([]), "");
});

t.test("no result steers the terminal or forges a line", async (t) => {
	const text = formatResults(hostileHost, { colour: false });
	t.notMatch(text, steering);
	t.equal(
		text.split("\n").filter((line) => /^\S/.test(line)).length,
		hostileHost.length,
	);
	t.match(text, "<U+001B>[2J");
	t.match(text, "invoice<U+202E>gnp.exe");
	for (const result of hostileHost) {
		const [first, ...rest] = explain(result).split("\n");
		t.notMatch(explain(result), steering);
		t.type(first, "string");
		t.notOk(
			rest.find(
				(line) =>
					!/^(?: |$|State: |Should be so: |Seen:|Not seen because:|Why it matters:|What to do:|How to find out:)/.test(
						line,
					),
			),
		);
	}
});

t.test(
	"evidence is cut in the table and whole where it is explained",
	async (t) => {
		const long = hostileTexts.find((text) => /^A+$/.test(text)) ?? "";
		const results = hostileHost.filter(({ title }) => title === long);
		const result = { ...(results[0] as Result), id: "long", fix: "true" };
		const table = formatResults([result], { colour: false });
		t.ok(table.length < 250, String(table.length));
		t.match(table, "…");
		t.match(explain(result), long);
	},
);

t.test(
	"colours stand where the terminal takes them and are asked for",
	async (t) => {
		withEnvironment(t, { FORCE_COLOR: "1", NO_COLOR: undefined });
		t.match(formatResults(openHost), "\u001b[31m");
		t.match(formatResults(openHost, { colour: true }), "\u001b[36m");
		t.notMatch(formatResults(openHost, { colour: false }), "\u001b");
		withEnvironment(t, { FORCE_COLOR: undefined, NO_COLOR: "1" });
		t.notMatch(formatResults(openHost), "\u001b");
	},
);

t.test(
	"a check is explained: what, how it is, what was seen, why, what to do",
	async (t) => {
		const result = openHost.find(({ id }) => id === "ollama.listening");
		t.equal(
			explain(result as Result),
			`0.0.0.0:11434 (ollama, pid 812) (ollama.listening)

State: critical
Should be so: Ollama listens on loopback only

Seen:
  0.0.0.0:11434 (ollama, pid 812)
  OLLAMA_HOST=0.0.0.0 in /etc/systemd/system/ollama.service.d/override.conf
  203.0.113.40 is an address of eth0 and public

Why it matters:
  Ollama asks nobody for a key: who reaches it may run, pull and delete models.

What to do:
    sudo llamagate setup --only ollama
`,
		);
	},
);

t.test(
	"the sentence on top counts, names the worst and owns up to what is unknown",
	async (t) => {
		t.equal(headline([]), "Nothing was checked.");
		t.equal(headline(lockedHost), "1 finding, worst: info.");
		t.equal(
			headline(lockedHost.filter(({ state }) => state === "ok")),
			"Nothing found.",
		);
		t.equal(
			headline(openHost),
			"8 findings, worst: critical; 1 check could not be made.",
		);
		t.equal(
			headline(withoutRoot),
			"Nothing found, but 6 checks could not be made.",
		);
	},
);

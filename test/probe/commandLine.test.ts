import { readFile, stat, writeFile } from "node:fs/promises";
import path from "node:path";
import { Ajv } from "ajv";
import t from "tap";
import { probe as command } from "../../src/commands/probe.ts";
import { UsageError } from "../../src/errors.ts";
import { checks } from "../../src/probe/checks.ts";
import {
	runCli,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";

/** How the command refuses its arguments, which is exit code 2. */
async function refusalOf(args: readonly string[]): Promise<string> {
	try {
		await command.run([...args]);
	} catch (error) {
		if (error instanceof UsageError) return error.message;
		throw error;
	}
	throw new Error(`not refused: ${args.join(" ")}`);
}

t.test(
	"a command line that makes no sense is refused, with what to do",
	async (t) => {
		for (const [args, message] of [
			[[], /a URL, --public or --webui/],
			[["http://box/api"], /without a path/],
			[["a", "b"], /one URL is enough/],
			[["box", "--lockot"], /did you mean --lockout/],
			[["box", "--model", "a b"], /model's name/],
			[["box", "--timeout", "soon"], /--timeout/],
			[["box", "--timeout", "5ms"], /--timeout/],
			[["box", "--ports", "22"], /go with --public/],
			[["box", "--allow-private"], /go with --public/],
			[["--public", "http://1.2.3.4"], /without a port/],
			[["--public", "1.2.3.0/24"], /one address or one name/],
			[["--public", "1.2.3.4", "--ports", "0"], /--ports takes numbers/],
			[["--public", "1.2.3.4", "--ports", "1-65535"], /--ports takes numbers/],
			[
				[
					"--public",
					"1.2.3.4",
					"--ports",
					Array.from({ length: 21 }, (_, i) => i + 1).join(","),
				],
				/20 at the most/,
			],
			[["--public", "1.2.3.4", "--lockout"], /--lockout needs the URL/],
			[["--webui", "http://box"], /https/],
		] as const)
			t.match(await refusalOf(args), message, args.join(" "));
		const { code, stderr } = await runCli(["probe"]);
		t.equal(code, 2);
		t.match(stderr, /See: llamagate probe --help/);
	},
);

t.test(
	"addresses that a public test says nothing about are refused, with the reason",
	async (t) => {
		for (const [address, reason] of [
			["127.0.0.1", /this device itself/],
			["localhost", /this device itself/],
			["::1", /this device itself/],
			["192.168.1.5", /private network.*--allow-private/],
			["10.0.0.1", /private network/],
			["fd00::1", /private network/],
			["100.101.102.104", /address of the tailnet/],
			["fd7a:115c:a1e0::104", /address of the tailnet/],
			["169.254.169.254", /no address that the internet can reach/],
			["fe80::1", /no address that the internet can reach/],
			["224.0.0.1", /no address that the internet can reach/],
			["0.0.0.0", /no address that the internet can reach/],
		] as const)
			t.match(await refusalOf(["--public", address]), reason, address);
		// What is allowed is the LAN, not this device nor the tailnet.
		for (const address of ["127.0.0.1", "100.101.102.104", "169.254.169.254"])
			t.ok(await refusalOf(["--public", address, "--allow-private"]), address);
	},
);

t.test(
	"a key never goes on the command line, nor into what is said",
	async (t) => {
		for (const args of [
			["box", "--key", testKeys.user],
			["box", `--token=${testKeys.user}`],
			["box", testKeys.user],
			[testKeys.user],
			[testKeys.user.toUpperCase()],
			[`http://${testKeys.user}`],
			[`${testKeys.user}:11434`],
			["--public", testKeys.user],
			["--webui", testKeys.user],
			["--webui", `https://${testKeys.user}/`],
			["box", "--model", testKeys.user],
			["--public", "f".repeat(64)],
		]) {
			const message = await refusalOf(args);
			t.match(message, /key/);
			t.notOk(message.toLowerCase().includes(testKeys.user));
			t.notMatch(message, /ffff/);
		}
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
		for (const more of [[], ["--json"]]) {
			const { stdout, stderr } = await runCli(
				["probe", gate.url, "--key-stdin", ...more],
				`${testKeys.user}\n`,
			);
			t.match(stdout, /probe\.stream/);
			t.notOk((stdout + stderr).includes(testKeys.user));
		}
		const weak = await runCli(
			["probe", gate.url, "--key-stdin"],
			"secret-word",
		);
		t.equal(weak.code, 1);
		t.match(weak.stderr, /not a key of llamagate/);
		t.notMatch(weak.stderr, /secret-word/);
	},
);

t.test(
	"without a key what strangers see is tried, and the rest is unknown",
	async (t) => {
		const gate = await startGate(t);
		const { code, stdout } = await runCli(["probe", gate.url]);
		t.equal(code, 0);
		t.match(stdout, /^ok +probe\.no-key/m);
		t.match(
			stdout,
			/^unknown +9 checks: no key was given.*\n[^a-z]+probe\.key-accepted.*\n[^:]*probe\.stream,/m,
		);
		t.strictSame(
			gate.log.filter(({ msg, key }) => msg === "request" && key !== null),
			[],
		);
	},
);

t.test(
	"people get a table, worst first, the stream as a picture, and a page",
	async (t) => {
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 15 } });
		const file = path.join(await temporaryFolder(t), "probe.html");
		await writeFile(file, "an older page", { mode: 0o644 });
		const { code, stdout, stderr } = await runCli(
			["probe", gate.url, "--key-stdin", "--html", file],
			testKeys.user,
		);
		t.equal(code, 0);
		t.equal(stderr, "");
		const lines = stdout.split("\n");
		t.match(lines[0], /^Probe of http:\/\/127\.0\.0\.1:\d+, [\d.]+ s$/);
		t.match(lines[2], /^warn +probe\.elsewhere/);
		t.match(stdout, /first token after .* then 48 tokens in \d+ arrivals/);
		t.match(stdout, /10–30 ms +\d+ █+/);
		t.match(stdout, /OLLAMA_NUM_PARALLEL/);
		t.notOk(stdout.includes("\u001b"));
		const page = await readFile(file, "utf8");
		t.match(page, /probe\.stream/);
		t.match(page, /Gaps between chunks/);
		t.match(
			page,
			/<p>First token after [\d.]+ m?s, then [\d.]+ tokens a second \(48 in /,
		);
		t.notOk(page.includes(testKeys.user));
		if (process.platform !== "win32")
			t.equal((await stat(file)).mode & 0o777, 0o600);
		const nowhere = await runCli([
			"probe",
			gate.url,
			"--html",
			"/nowhere/x.html",
		]);
		t.equal(nowhere.code, 1);
		t.match(nowhere.stderr, /cannot be written \(ENOENT\)/);
		t.match(nowhere.stdout, /^ok +probe\.no-key/m);
	},
);

t.test(
	"a page that cannot be written is all that programs are told of",
	async (t) => {
		const gate = await startGate(t);
		const { code, stdout } = await runCli([
			...["probe", gate.url, "--json", "--html", "/nowhere/x.html"],
		]);
		t.equal(code, 1);
		t.match(JSON.parse(stdout), { error: /cannot be written \(ENOENT\)/ });
	},
);

t.test("programs get JSON, as docs/report.schema.json says", async (t) => {
	const gate = await startGate(t, { standIn: { tokenIntervalMs: 10 } });
	const { code, stdout } = await runCli(
		["probe", gate.url, "--key-stdin", "--json"],
		testKeys.reader,
	);
	t.equal(code, 0);
	const report = JSON.parse(stdout) as object;
	const schema = JSON.parse(
		await readFile("docs/report.schema.json", "utf8"),
	) as object;
	const validate = new Ajv().compile(schema);
	t.ok(validate(report), JSON.stringify(validate.errors));
	t.match(report, {
		target: gate.url,
		ok: true,
		results: [{ id: /^probe\./ }],
	});
});

t.test("what serious checks find is exit code 1", async (t) => {
	const gate = await startGate(t);
	const { code } = await runCli(
		["probe", gate.url, "--key-stdin"],
		testKeys.wrong,
	);
	t.equal(code, 1);
});

t.test(
	"every check has an id of its own, and says why it matters",
	async (t) => {
		const all = Object.values(checks);
		t.equal(new Set(all.map(({ id }) => id)).size, all.length);
		for (const { id, title, why } of all) {
			t.match(id, /^probe\.[a-z0-9.-]+$/);
			t.notMatch(title, /\.$/, id);
			t.match(why, /\.$/, id);
		}
	},
);

import { readFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import {
	judgeAction,
	judgeFilter,
	judgeJournal,
	parseActions,
	parseJails,
	parseList,
} from "../../src/host/fail2ban/checks.ts";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import { follow, lookAt, runDoctor, stateOf } from "../support/doctor.ts";
import { testKeys } from "../support/gate.ts";
import { ask, becomes, gateV4 } from "../support/namespaces.ts";

/** A file that fail2ban reads after setup's. */
const override = "/etc/fail2ban/jail.d/zz-test.local";

async function restart(host: BootedHost): Promise<void> {
	await host.sh(`systemctl restart fail2ban
		for try in $(seq 600); do fail2ban-client ping >/dev/null 2>&1 && break; sleep 0.1; done`);
}

/** What doctor finds while fail2ban is told something else. */
async function withJail(
	t: Test,
	host: BootedHost,
	text: string,
	wanted: Readonly<Record<string, readonly [string, RegExp]>>,
): Promise<void> {
	await host.write(override, text);
	await restart(host);
	const results = await runDoctor(host, "fail2ban");
	for (const [id, [severity, evidence]] of Object.entries(wanted)) {
		const found = results.find((one) => one.id === `fail2ban.${id}`);
		t.equal(found && stateOf(found), severity, `${id}: ${found?.evidence}`);
		t.match(found?.evidence.join("\n"), evidence, id);
	}
	await host.sh(`rm ${override}`);
}

t.test("doctor looks at fail2ban", booting(), async (t) => {
	const host = await bootHost(t);
	await host.sh("llamagate setup --only fail2ban --yes >/dev/null");

	await t.test("and finds nothing where setup has been", async (t) => {
		for (const result of await runDoctor(host, "fail2ban"))
			t.equal(stateOf(result), "ok", `${result.id}: ${result.evidence}`);
	});

	await t.test("no jails", async (t) => {
		await withJail(
			t,
			host,
			"[llamagate]\nenabled = false\n[sshd]\nenabled = false\n[recidive]\nenabled = true\nbackend = systemd\n",
			{
				jail: ["warn", /its jails are recidive, and llamagate is not/],
				sshd: ["info", /none of its jails/],
				action: ["unknown", /jail does not exist/],
				filter: ["unknown", /jail does not exist/],
				journal: ["unknown", /jail does not exist/],
			},
		);
	});

	await t.test("another action, filter and log", async (t) => {
		await host.write(
			"/etc/fail2ban/filter.d/llamagate.local",
			"[Definition]\nfailregex = auth_failed.*<ADDR>\njournalmatch = _SYSTEMD_UNIT=nginx.service\n",
		);
		await withJail(t, host, "[llamagate]\nbanaction = iptables-multiport\n", {
			action: ["warn", /answered by iptables-multiport, which holds off no/],
			filter: ["warn", /not what is shipped: auth_failed/],
			journal: ["warn", /lines of _SYSTEMD_UNIT=nginx\.service/],
		});
		await host.sh(`echo nothing >/var/log/llamagate.log
			rm /etc/fail2ban/filter.d/llamagate.local
			printf '[Definition]\\nignoreregex =\\n' >/etc/fail2ban/filter.d/llamagate.local`);
		await withJail(
			t,
			host,
			"[llamagate]\nport = 8080\nbackend = polling\nlogpath = /var/log/llamagate.log\n",
			{
				action: ["warn", /bans close port 8080, and the gate is on 11434/],
				filter: ["warn", /passes over is not what is shipped: nothing/],
				journal: [
					"warn",
					/reads .*\/var\/log\/llamagate\.log, and the gate logs to/,
				],
			},
		);
		await host.sh("rm /etc/fail2ban/filter.d/llamagate.local");
		await restart(host);
	});

	await t.test("bans", async (t) => {
		await host.sh(`fail2ban-client set llamagate banip 192.0.2.9
			for try in $(seq 600); do nft list ruleset | grep -q 192.0.2.9 && break; sleep 0.1; done`);
		const banned = await lookAt(host, "fail2ban.banned");
		t.match(banned, {
			state: "info",
			evidence: /^192\.0\.2\.9 is banned by jail llamagate$/,
			fix: /^sudo fail2ban-client set llamagate unbanip 192\.0\.2\.9$/,
		});
		t.match(await lookAt(host, "fail2ban.action"), {
			state: "ok",
			evidence: /the kernel has its 1 ban/,
		});
		await host.sh("nft delete table inet f2b-table");
		const lost = await lookAt(host, "fail2ban.action");
		t.match(lost, { state: "warn", evidence: /192\.0\.2\.9: banned, and not/ });
		await follow(host, lost.fix);
		await host.sh(
			"for try in $(seq 600); do nft list ruleset | grep -q 192.0.2.9 && break; sleep 0.1; done",
		);
		t.equal((await lookAt(host, "fail2ban.action")).state, "ok");
		await follow(host, banned.fix);
		t.equal((await lookAt(host, "fail2ban.banned")).state, "ok");
	});

	await t.test("wrong keys that nobody counts", async (t) => {
		const peer = await host.plugTailnet();
		await host.sh("mkdir /var/log/elsewhere");
		await host.write(
			override,
			"[llamagate]\nbackend = systemd[journalpath=/var/log/elsewhere]\n",
		);
		await restart(host);
		await becomes(
			t,
			async () => (await ask(peer, gateV4, { key: testKeys.wrong })).status,
			401,
			"a wrong key",
		);
		t.match(await lookAt(host, "fail2ban.journal"), {
			state: "warn",
			evidence: /has logged \d+ wrong key\(s\) .* has counted none/,
		});
		await host.sh(`rm ${override}`);
		await restart(host);
		t.equal((await lookAt(host, "fail2ban.journal")).state, "ok");
		await ask(peer, gateV4, { key: testKeys.wrong });
		t.match(await lookAt(host, "fail2ban.journal"), {
			state: "ok",
			evidence: /has counted [1-9]/,
		});
	});

	await t.test("not running, not there", async (t) => {
		await host.sh("systemctl stop fail2ban");
		const found = await lookAt(host, "fail2ban.running");
		t.equal(found.state, "warn", found.evidence);
		for (const { id, state } of await runDoctor(host, "fail2ban"))
			if (id !== "fail2ban.running") t.equal(state, "unknown", id);
		await follow(host, found.fix);
		await restart(host);
		t.equal((await lookAt(host, "fail2ban.running")).state, "ok");
		await host.sh("mv /usr/bin/fail2ban-client /root/");
		for (const { id, state } of await runDoctor(host, "fail2ban"))
			t.equal(state, "absent", id);
	});
});

t.test("what fail2ban-client prints is read", async (t) => {
	t.strictSame(
		parseJails(
			"Status\n|- Number of jail:\t2\n`- Jail list:\tllamagate, sshd\n",
		),
		["llamagate", "sshd"],
	);
	t.strictSame(
		parseJails("Status\n|- Number of jail:\t0\n`- Jail list:\t\n"),
		[],
	);
	t.strictSame(
		parseActions(
			"The jail x has the following actions:\nnftables-multiport, mail\n",
		),
		["nftables-multiport", "mail"],
	);
	t.strictSame(parseActions("No actions for jail x\n"), []);
	t.strictSame(
		parseList(
			"The following regular expression are defined:\n|- [0]: ^a b$\n`- [1]: c\n",
		),
		["^a b$", "c"],
	);
});

t.test(
	"a filter in force is compared with the one that is shipped",
	async (t) => {
		const shipped = await readFile(
			path.join(import.meta.dirname, "../../fail2ban/filter.d/llamagate.conf"),
			"utf8",
		);
		// As fail2ban 1.0.2 prints it.
		const inForce = String.raw`^(?:(?:\S+ )?llamagate(?:\[\d+\])?: )?\{"event":"auth_failed","ip":"\[?(?:(?:::f{4,6}:)?(?P<ip4>(?:\d{1,3}\.){3}\d{1,3})|(?P<ip6>(?:[0-9a-fA-F]{1,4}::?|::){1,7}(?:[0-9a-fA-F]{1,4}|(?<=:):)))\]?","level":"warn",`;
		const ignoring = [String.raw`"ip":"(?:127\.|::1")`];
		t.equal(judgeFilter(shipped, [inForce], ignoring).state, "ok");
		for (const other of [
			[],
			[inForce, "auth"],
			[inForce.slice(1)],
			[inForce.replace("warn", "info")],
			[inForce.replace("(?P<ip4>", "(?P<ip>")],
		])
			t.equal(
				judgeFilter(shipped, other, ignoring).state,
				"finding",
				String(other),
			);
		t.equal(judgeFilter(shipped, [inForce], []).state, "finding");
	},
);

t.test("a log with wrong keys and a jail that counts none", async (t) => {
	const status = (failed: number) => `Status for the jail: llamagate
|- Filter
|  |- Currently failed:	0
|  |- Total failed:	${failed}
|  \`- Journal matches:	_SYSTEMD_UNIT=llamagate.service
`;
	t.equal(judgeJournal(status(0), 12).state, "finding");
	t.equal(judgeJournal(status(12), 12).state, "ok");
	t.equal(judgeJournal(status(0), 0).state, "ok");
	t.equal(judgeJournal(status(0), undefined).state, "unknown");
});

t.test("a ban that only fail2ban knows of is none", async (t) => {
	const action = {
		name: "nftables-multiport",
		ban: "nft add element",
		port: "11434\n",
	};
	const rules = "elements = { 192.0.2.9, 2001:db8::1 }";
	const judge = (...args: Parameters<typeof judgeAction>) =>
		judgeAction(...args).state;
	t.equal(judge([action], "11434", ["192.0.2.9", "2001:db8::1"], rules), "ok");
	t.equal(judge([action], "11434", ["192.0.2.99"], rules), "finding");
	t.equal(judge([action], "11434", ["192.0.2.9"], undefined), "unknown");
	t.equal(judge([], "11434", [], rules), "finding");
	t.equal(judge([{ ...action, port: "80,11434" }], "11434", [], rules), "ok");
	t.equal(judge([action], "11500", [], rules), "finding");
	t.equal(
		judge(
			[{ ...action, name: "nftables-allports", port: "0:65535" }],
			"11500",
			[],
			rules,
		),
		"ok",
	);
});

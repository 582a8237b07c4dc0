import t, { type Test } from "tap";
import {
	judgeProcess,
	judgeProperties,
	readProcessStatus,
} from "../../src/host/gate/sandbox.ts";
import { generateKey } from "../../src/keys/newKey.ts";
import { parseProperties } from "../../src/system/units.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import {
	asNobody,
	comesOut,
	commandOf,
	evidenceOf,
	examine,
	statesOf,
} from "../support/doctor.ts";
import { addresses, becomes } from "../support/namespaces.ts";
import { runSetup } from "../support/setupHost.ts";

const lan = addresses.lanServer.v4;
t.test("the gate on a booted host", booting(), async (t) => {
	const host = await bootHost(t, { llamagate: "installed" });
	await host.plugLan();
	await host.plugTailnet();
	const { code, report } = await runSetup(host, "--yes", "--skip", "sshd");
	t.equal(code, 0, JSON.stringify(report));
	const key = report.key ?? "";

	const comeOut = (t: Test, wanted: Record<string, string>, message: string) =>
		comesOut(t, host, wanted, message);
	/** One more drop-in of a unit, read by systemd. */
	const addDropIn = async (unit: string, content: string) => {
		await host.write(`/etc/systemd/system/${unit}.d/zz-test.conf`, content);
		await host.sh("systemctl daemon-reload");
	};
	const removeDropIn = (unit: string) =>
		host.sh(
			`rm /etc/systemd/system/${unit}.d/zz-test.conf; systemctl daemon-reload`,
		);
	const tryKey = async (given: string) => {
		const { stdout, stderr } = await host.run(
			...["sh", "-euc"],
			'printf %s "$1" | llamagate doctor --json --only gate.key --key-stdin',
			...["sh", given],
		);
		t.notMatch(stdout + stderr, given, "the key is not shown");
		return (JSON.parse(stdout) as { results: { state: string }[] }).results[0]
			?.state;
	};

	await t.test("freshly set up", async (t) => {
		t.strictSame(statesOf(await examine(host, ["gate"])), {
			"gate.units": "ok",
			"gate.listening": "ok",
			"gate.refuses": "ok",
			"gate.key": "unknown",
			"gate.in-force": "ok",
			"gate.expiry": "ok",
			"gate.unused-keys": "ok",
			"gate.rotation": "ok",
			"gate.canary": "absent",
			"gate.logins": "ok",
			"gate.files": "ok",
			"gate.hardening": "ok",
			"gate.process": "ok",
			"gate.ledger": "absent",
			"gate.alarms": "absent",
			"gate.hosts": "absent",
			"gate.hosts-bare": "absent",
			"gate.hosts-limits": "absent",
			"gate.state": "absent",
			"gate.valkey": "absent",
			"gate.certificate": "absent",
			"gate.watchdog": "ok",
			"gate.version": "ok",
			"gate.bridges": "absent",
		});
		const nobodys = await examine(host, ["gate"], asNobody);
		t.strictSame(
			[...nobodys.values()]
				.filter(({ state }) => state !== "unknown")
				.map(({ id, state }) => [id, state]),
			[
				["gate.units", "ok"],
				["gate.hardening", "ok"],
				["gate.watchdog", "ok"],
			],
			"without root the rest is unknown",
		);
		for (const { id, evidence } of nobodys.values())
			if (nobodys.get(id)?.state === "unknown")
				t.match(evidence.join(), /root|--key-stdin/, id);
	});

	await t.test("a key to try", async (t) => {
		t.equal(await tryKey(key), "ok");
		t.equal(await tryKey(generateKey()), "finding", "a wrong one");
		const { code, stderr } = await host.run(
			...["sh", "-euc"],
			"echo password | llamagate doctor --key-stdin --only gate.key",
		);
		t.equal(code, 1);
		t.match(stderr, /not a key of llamagate/);
		t.notMatch(stderr, "password");
	});

	await t.test("units that do not run", async (t) => {
		await host.sh("systemctl disable --now --quiet llamagate-doctor.timer");
		const idle = await examine(host, ["gate.units"]);
		t.match(statesOf(idle), { "gate.units": "warn" });
		t.match(evidenceOf(idle, "gate.units"), /^llamagate-doctor\.timer/);
		await host.sh(commandOf(idle, "gate.units"));
		t.match(statesOf(await examine(host, ["gate.units"])), {
			"gate.units": "ok",
		});
		await host.sh("systemctl disable --now --quiet llamagate-listen");
		const found = await examine(host, ["gate.units"]);
		t.match(statesOf(found), { "gate.units": "high" });
		t.match(evidenceOf(found, "gate.units"), /^llamagate-listen.*follower/);
		await host.sh("systemctl stop llamagate-ollama.socket");
		t.match(
			evidenceOf(await examine(host, ["gate.units"]), "gate.units"),
			/llamagate-ollama.socket \(the bridge/,
		);
		await host.sh("systemctl stop llamagate.socket llamagate.service");
		await comeOut(
			t,
			{ "gate.units": "high", "gate.listening": "high" },
			"a gate that was stopped",
		);
		await host.sh(`${commandOf(found, "gate.units")} --yes`);
		await comeOut(t, { "gate.units": "ok", "gate.listening": "ok" }, "mended");
	});

	await t.test("a gate that is being started", async (t) => {
		const restart = "systemctl restart --no-block llamagate.service";
		const state = () =>
			host.sh("systemctl show -p ActiveState --value llamagate.service");
		const first = (script: string) =>
			addDropIn(
				"llamagate.service",
				`[Service]\nExecStartPre=/usr/lib/llamagate/bin/node -e "${script}"\n`,
			);
		await first("setTimeout(() => 0, 3_000)");
		await host.sh(restart);
		await becomes(t, state, "activating\n", "it is on its way");
		t.match(
			statesOf(await examine(host, ["gate"])),
			{ "gate.units": "ok", "gate.refuses": "ok", "gate.in-force": "ok" },
			"is waited for",
		);
		await first("process.exit(1)");
		await host.sh(restart);
		await comeOut(
			t,
			{ "gate.units": "high" },
			"one that falls again and again is not",
		);
		await removeDropIn("llamagate.service");
		await host.sh(
			"systemctl reset-failed llamagate.service; systemctl restart llamagate.socket llamagate.service",
		);
		await comeOut(t, { "gate.units": "ok", "gate.listening": "ok" }, "mended");
	});

	await t.test("sockets where there should be none", async (t) => {
		await addDropIn(
			"llamagate.socket",
			`[Socket]\nListenStream=${lan}:11434\nListenStream=12345\n`,
		);
		const again =
			"systemctl stop llamagate.socket llamagate.service; systemctl start llamagate.socket";
		await host.sh(again);
		await comeOut(t, { "gate.listening": "critical" }, "on the LAN");
		const evidence = evidenceOf(
			await examine(host, ["gate.listening"]),
			"gate.listening",
		);
		t.match(evidence, `${lan}:11434`);
		t.match(evidence, "*:12345", "and on every address");
		await addDropIn("llamagate.socket", "[Socket]\nBindToDevice=eth0\n");
		await host.sh(again);
		await comeOut(t, { "gate.listening": "high" }, "bound to another one");
		await removeDropIn("llamagate.socket");
		await host.sh(`${again}; systemctl start llamagate.service`);
		await comeOut(
			t,
			{ "gate.listening": "ok", "gate.refuses": "ok" },
			"and gone",
		);
	});

	await t.test("sockets that nothing holds to tailscale0", async (t) => {
		await host.sh("systemctl stop llamagate-listen");
		await comeOut(t, { "gate.listening": "warn" }, "with one table only");
		await host.sh("nft delete table inet llamagate");
		await comeOut(t, { "gate.listening": "high" }, "with none");
		await host.sh("systemctl start llamagate-listen");
		await comeOut(t, { "gate.listening": "ok" }, "with both");
		await host.sh(`systemctl stop llamagate-listen
			nft delete chain inet llamagate input
			nft add chain inet llamagate input '{ type filter hook input priority 0; }'
			nft add rule inet llamagate input iifname != tailscale0 tcp dport 11434 accept`);
		await comeOut(t, { "gate.listening": "high" }, "with one that is changed");
		await host.sh("systemctl start llamagate-listen");
		await comeOut(t, { "gate.listening": "ok" }, "which is put right");
	});

	await t.test(
		"something in the gate's place that asks for no key",
		async (t) => {
			await host.sh(`systemctl stop llamagate-listen llamagate.socket llamagate.service
				systemd-run --quiet --unit=open --socket-property=ListenStream=${addresses.server.v4}:11434 \
					/lib/systemd/systemd-socket-proxyd 127.0.0.1:11434`);
			const found = await examine(host, ["gate.refuses"]);
			t.match(statesOf(found), { "gate.refuses": "critical" });
			t.match(
				evidenceOf(found, "gate.refuses"),
				/100\.101\.102\.104:11434: GET \/api\/tags: 200/,
			);
			const calls = await host.journal("ollama");
			t.ok(calls.some((line) => line.includes("GET /api/tags")));
			t.notOk(
				calls.some((line) => /DELETE|\/api\/(?:pull|create|copy)/.test(line)),
				"what could change something is not tried on it",
			);
			await host.sh(`systemctl stop open.socket open.service
				systemctl start llamagate.socket llamagate.service llamagate-listen`);
			await comeOut(
				t,
				{ "gate.refuses": "ok", "gate.listening": "ok" },
				"and gone",
			);
		},
	);

	await t.test("a weaker sandbox", async (t) => {
		const ids = {
			"gate.hardening": "ok",
			"gate.process": "ok",
			"gate.watchdog": "ok",
		};
		await addDropIn(
			"llamagate.service",
			`[Service]
PrivateNetwork=no
PrivateUsers=no
NoNewPrivileges=no
RestrictSUIDSGID=no
CapabilityBoundingSet=CAP_NET_RAW
AmbientCapabilities=CAP_NET_RAW
SystemCallFilter=
InaccessiblePaths=
BindReadOnlyPaths=/home
Environment=NODE_OPTIONS=--trace-warnings
WatchdogSec=0
Restart=no
`,
		);
		const found = await examine(host, Object.keys(ids));
		t.strictSame(
			statesOf(found),
			{
				"gate.hardening": "high",
				"gate.process": "ok",
				"gate.watchdog": "warn",
			},
			"the process that runs is still held",
		);
		for (const name of [
			"PrivateNetwork is no",
			"NoNewPrivileges",
			"CapabilityBoundingSet is cap_net_raw",
			"AmbientCapabilities",
			"SystemCallFilter",
			"InaccessiblePaths is without .*docker.sock",
			"BindReadOnlyPaths was shipped without /home",
			"Environment gives it NODE_OPTIONS",
		])
			t.match(
				evidenceOf(found, "gate.hardening"),
				new RegExp(`^${name}.*by /etc/systemd/system/.*/zz-test.conf$`, "m"),
			);
		await host.sh("systemctl restart llamagate");
		const running = await examine(host, ["gate.process", "gate.watchdog"]);
		t.match(statesOf(running), { "gate.process": "high" });
		t.match(evidenceOf(running, "gate.watchdog"), /WatchdogSec.*\n.*Restart/);
		t.match(
			evidenceOf(running, "gate.process"),
			/CapEff 0*2000.*\n(?:.*\n)*it is in the host's network/,
		);
		await host.sh("rm /etc/systemd/system/llamagate.service.d/zz-test.conf");
		await host.sh(commandOf(running, "gate.process"));
		await comeOut(t, ids, "mended by its fix");

		await addDropIn(
			"llamagate.service",
			"[Service]\nMemoryMax=2G\nEnvironment=TZ=UTC\n",
		);
		t.strictSame(
			statesOf(await examine(host, Object.keys(ids))),
			ids,
			"a drop-in that weakens nothing is none of these",
		);
		await removeDropIn("llamagate.service");
	});

	await t.test("an upgrade that does not run yet", async (t) => {
		const file = "/usr/lib/llamagate/app/package.json";
		await host.sh(`sed -i 's/"version": "[^"]*"/"version": "99.0.0"/' ${file}`);
		const found = await examine(host, ["gate.version"]);
		t.match(statesOf(found), { "gate.version": "warn" });
		t.match(evidenceOf(found, "gate.version"), /runs, and 99\.0\.0 is inst/);
		await host.sh(commandOf(found, "gate.version"));
		await comeOut(t, { "gate.version": "ok" }, "mended by its fix");
		await host.sh(`cp /usr/lib/llamagate/bin/node /usr/lib/llamagate/bin/new
				mv /usr/lib/llamagate/bin/new /usr/lib/llamagate/bin/node`);
		const node = await examine(host, ["gate.version"]);
		t.match(statesOf(node), { "gate.version": "warn" });
		t.match(evidenceOf(node, "gate.version"), /Node .* was replaced/);
		await host.sh(commandOf(node, "gate.version"));
		await comeOut(t, { "gate.version": "ok" }, "mended by its fix");
	});
});

t.test("what cannot be read of a process or a unit is no pass", async (t) => {
	t.equal(judgeProperties(parseProperties(""), []).state, "unknown");
	const status = readProcessStatus(
		"Uid:\t999\t999\t999\t999\nCapEff:\t0\nCapBnd:\t0\nNoNewPrivs:\t1\nSeccomp:\t2\n",
	);
	t.equal(judgeProcess(1, status, "net:[1]", "net:[2]").state, "ok");
	t.equal(judgeProcess(1, status, "net:[2]", "net:[2]").state, "finding");
	for (const name of status.keys()) {
		const rest = new Map(status);
		rest.delete(name);
		t.equal(judgeProcess(1, rest, "net:[1]", "net:[2]").state, "unknown", name);
	}
	for (const [name, value] of [
		["Uid", "0\t0\t0\t0"],
		["CapEff", "0000000000002000"],
		["CapBnd", "000001ffffffffff"],
		["NoNewPrivs", "0"],
		["Seccomp", "0"],
	] as const)
		t.equal(
			judgeProcess(1, new Map([...status, [name, value]]), "a", "b").state,
			"finding",
			name,
		);
});

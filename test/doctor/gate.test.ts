import t, { type Test } from "tap";
import {
	judgeCanaries,
	judgeInForce,
	judgeRotation,
	judgeUse,
	readCanaryUses,
} from "../../src/doctor/gateKeys.ts";
import {
	judgeProcess,
	judgeProperties,
	readProcessStatus,
} from "../../src/doctor/gateSandbox.ts";
import { parseProperties } from "../../src/doctor/runningGate.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { generateKey } from "../../src/keys/newKey.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import {
	asNobody,
	commandOf,
	evidenceOf,
	examine,
	statesOf,
} from "../support/doctor.ts";
import { addresses, becomes } from "../support/namespaces.ts";
import { runSetup } from "../support/setupHost.ts";

const keysFile = "/etc/llamagate/keys.json";
const configFile = "/etc/llamagate/config.json";
const lan = addresses.lanServer.v4;
const dayMs = 86_400_000;

/** A clock of doctor's that is ahead. */
const ahead = (days: number) => [
	"env",
	`NODE_OPTIONS=--import=data:text/javascript,${encodeURIComponent(
		`const now = Date.now; Date.now = () => now() + ${days * dayMs};`,
	)}`,
];

t.test(
	"the gate on a booted host",
	{ ...booting(), timeout: 180_000 },
	async (t) => {
		const host = await bootHost(t, { llamagate: "installed" });
		await host.plugLan();
		await host.plugTailnet();
		const { code, report } = await runSetup(host, "--yes", "--skip", "sshd");
		t.equal(code, 0, JSON.stringify(report));
		const key = report.key ?? "";

		/** Waits until some checks come out so; a restart takes its moment. */
		const comeOut = (
			t: Test,
			wanted: Record<string, string>,
			message: string,
		) =>
			becomes(
				t,
				async () => statesOf(await examine(host, Object.keys(wanted))),
				wanted,
				message,
			);
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
				"gate.files": "ok",
				"gate.hardening": "ok",
				"gate.process": "ok",
				"gate.watchdog": "ok",
				"gate.version": "ok",
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
			t.match(stderr, /no key of llamagate/);
			t.notMatch(stderr, "password");
		});

		await t.test("units that do not run", async (t) => {
			await host.sh("systemctl disable --now --quiet llamagate-listen");
			const found = await examine(host, ["gate.units"]);
			t.match(statesOf(found), { "gate.units": "finding high" });
			t.match(evidenceOf(found, "gate.units"), /^llamagate-listen.*follower/);
			await host.sh("systemctl stop llamagate-ollama.socket");
			t.match(
				evidenceOf(await examine(host, ["gate.units"]), "gate.units"),
				/llamagate-ollama.socket \(the bridge/,
			);
			await host.sh("systemctl stop llamagate.socket llamagate.service");
			await comeOut(
				t,
				{ "gate.units": "finding high", "gate.listening": "finding high" },
				"a gate that was stopped",
			);
			await host.sh(`${commandOf(found, "gate.units")} --yes`);
			await comeOut(
				t,
				{ "gate.units": "ok", "gate.listening": "ok" },
				"mended",
			);
		});

		await t.test("sockets where there should be none", async (t) => {
			await addDropIn(
				"llamagate.socket",
				`[Socket]\nBindToDevice=\nListenStream=${lan}:11434\n`,
			);
			const again =
				"systemctl stop llamagate.socket llamagate.service; systemctl start llamagate.socket";
			await host.sh(again);
			await comeOut(t, { "gate.listening": "finding critical" }, "on the LAN");
			t.match(
				evidenceOf(await examine(host, ["gate.listening"]), "gate.listening"),
				`${lan}:11434`,
			);
			await addDropIn("llamagate.socket", "[Socket]\nBindToDevice=\n");
			await host.sh(again);
			await comeOut(
				t,
				{ "gate.listening": "finding high" },
				"on Tailscale's address, and bound to no interface",
			);
			await removeDropIn("llamagate.socket");
			await host.sh(`${again}; systemctl start llamagate.service`);
			await comeOut(
				t,
				{ "gate.listening": "ok", "gate.refuses": "ok" },
				"and gone",
			);
		});

		await t.test(
			"something in the gate's place that asks for no key",
			async (t) => {
				await host.sh(`systemctl stop llamagate-listen llamagate.socket llamagate.service
				systemd-run --quiet --unit=open --socket-property=ListenStream=${addresses.server.v4}:11434 \
					/lib/systemd/systemd-socket-proxyd 127.0.0.1:11434`);
				const found = await examine(host, ["gate.refuses"]);
				t.match(statesOf(found), { "gate.refuses": "finding critical" });
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

		await t.test("files that are not in force", async (t) => {
			const reloaded = () => host.sh("llamagate reload");
			await host.sh("llamagate keys add second");
			const both = await host.read(keysFile);
			const { keys } = JSON.parse(both) as { keys: KeyEntry[] };
			const writeKeys = (some: readonly KeyEntry[]) =>
				host.write(keysFile, JSON.stringify({ keys: some }), 0o640);
			const found = () => examine(host, ["gate.in-force"]);
			t.match(statesOf(await found()), { "gate.in-force": "ok" });

			await writeKeys(keys.slice(0, 1));
			const revoked = await found();
			t.match(
				statesOf(revoked),
				{ "gate.in-force": "finding critical" },
				"a key that is gone from the file alone",
			);
			t.match(evidenceOf(revoked, "gate.in-force"), /still let in: second/);
			await host.sh(commandOf(revoked, "gate.in-force"));
			t.match(statesOf(await found()), { "gate.in-force": "ok" });

			await writeKeys(keys);
			t.match(
				statesOf(await found()),
				{ "gate.in-force": "finding high" },
				"a key that is in the file alone",
			);
			await reloaded();

			const config = await host.read(configFile);
			await host.write(configFile, '{ "drainTimeout": "soon" }', 0o640);
			await host.sh("systemctl kill -s HUP llamagate; sleep 0.5");
			const broken = await found();
			t.match(
				statesOf(broken),
				{ "gate.in-force": "finding high" },
				"a configuration that does not load",
			);
			t.match(evidenceOf(broken, "gate.in-force"), /would not start again/);
			t.match(evidenceOf(broken, "gate.in-force"), /reload.*was refused/s);
			await host.write(configFile, config, 0o640);
			t.match(
				evidenceOf(await found(), "gate.in-force"),
				/reload.*was refused/,
				"mended, and not read yet",
			);
			await reloaded();
			t.match(statesOf(await found()), { "gate.in-force": "ok" });

			await host.sh(`touch -d '+1 hour' ${configFile}`);
			t.match(
				evidenceOf(await found(), "gate.in-force"),
				/config\.json was written at/,
				"a configuration that was changed since",
			);
			await host.sh(`touch -d '-1 hour' ${configFile}`);
			t.match(statesOf(await found()), { "gate.in-force": "ok" });
		});

		await t.test("keys that want attention", async (t) => {
			const ids = ["gate.expiry", "gate.unused-keys", "gate.rotation"];
			await host.sh("llamagate keys add soon --expires 3d");
			const found = await examine(host, ["gate.expiry"]);
			t.match(statesOf(found), { "gate.expiry": "finding warn" });
			t.match(evidenceOf(found, "gate.expiry"), /^soon expires: /);
			t.match(
				evidenceOf(
					await examine(host, ["gate.expiry"], ahead(4)),
					"gate.expiry",
				),
				/^soon has expired: /,
			);
			await host.sh(commandOf(found, "gate.expiry"));
			t.strictSame(
				statesOf(await examine(host, ids)),
				Object.fromEntries(ids.map((id) => [id, "ok"])),
			);

			const later = await examine(host, ids, ahead(100));
			t.match(statesOf(later), {
				"gate.unused-keys": "finding warn",
				"gate.rotation": "ok",
			});
			t.match(
				evidenceOf(later, "gate.unused-keys"),
				/soon was not used since .*/,
			);
			t.match(commandOf(later, "gate.unused-keys"), /keys revoke second/);
			await host.sh("llamagate keys revoke soon; llamagate keys revoke second");
			const use = await examine(host, ids, ahead(100));
			t.notMatch(evidenceOf(use, "gate.unused-keys"), /soon|second/);

			t.match(statesOf(await examine(host, ids, ahead(400))), {
				"gate.rotation": "finding warn",
			});
			const { keys } = JSON.parse(await host.read(keysFile)) as {
				keys: KeyEntry[];
			};
			await host.write(
				keysFile,
				JSON.stringify({
					keys: keys.map((entry) => ({
						...entry,
						created: "2020-01-01T00:00:00Z",
					})),
				}),
				0o640,
			);
			await host.sh("systemctl restart llamagate");
			const old = await examine(host, ids);
			t.strictSame(statesOf(old), {
				"gate.expiry": "ok",
				"gate.unused-keys": "unknown",
				"gate.rotation": "finding warn",
			});
			t.match(
				evidenceOf(old, "gate.unused-keys"),
				/does not remember/,
				"a gate that has just started knows nothing of what was before",
			);
			await host.sh(commandOf(old, "gate.rotation"));
			t.strictSame(
				statesOf(await examine(host, ids)),
				Object.fromEntries(ids.map((id) => [id, "ok"])),
			);
		});

		await t.test("a canary that was used", async (t) => {
			const trap = generateKey();
			await host.sh(
				`printf %s ${trap} | llamagate keys add trap --canary --stdin`,
			);
			t.match(statesOf(await examine(host, ["gate.canary"])), {
				"gate.canary": "ok",
			});
			await host.sh(
				`curl -s --unix-socket /run/llamagate-local/gate.sock -H 'Authorization: Bearer ${trap}' http://x/api/tags`,
			);
			await comeOut(t, { "gate.canary": "finding high" }, "is told of");
			await host.sh("llamagate keys revoke trap");
			t.match(statesOf(await examine(host, ["gate.canary"])), {
				"gate.canary": "absent",
			});
			await host.sh("sleep 1.1; llamagate keys add trap --canary");
			t.match(
				statesOf(await examine(host, ["gate.canary"])),
				{ "gate.canary": "ok" },
				"a new one of that name has not been used",
			);
			await host.sh("llamagate keys revoke trap");
		});

		await t.test("files that others may change or read", async (t) => {
			for (const [fault, severity] of [
				[`chmod 0666 ${keysFile}`, "high"],
				[`chown llamagate ${keysFile}`, "high"],
				[`chmod 0660 ${configFile}`, "high"],
				["chmod 0770 /etc/llamagate", "high"],
				[`chmod 0644 ${keysFile}`, "warn"],
				[`chgrp games ${keysFile}`, "warn"],
			] as const) {
				await host.sh(fault);
				const found = await examine(host, ["gate.files"]);
				t.match(
					statesOf(found),
					{ "gate.files": `finding ${severity}` },
					fault,
				);
				await host.sh(commandOf(found, "gate.files"));
				t.match(statesOf(await examine(host, ["gate.files"])), {
					"gate.files": "ok",
				});
			}
		});

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
WatchdogSec=0
Restart=no
`,
			);
			const found = await examine(host, Object.keys(ids));
			t.strictSame(
				statesOf(found),
				{
					"gate.hardening": "finding high",
					"gate.process": "ok",
					"gate.watchdog": "finding warn",
				},
				"the process that runs is still held",
			);
			for (const name of [
				"PrivateNetwork is no",
				"NoNewPrivileges",
				"CapabilityBoundingSet is cap_net_raw",
				"AmbientCapabilities",
				"SystemCallFilter",
			])
				t.match(
					evidenceOf(found, "gate.hardening"),
					new RegExp(`^${name}.*by /etc/systemd/system/.*/zz-test.conf$`, "m"),
				);
			await host.sh("systemctl restart llamagate");
			const running = await examine(host, ["gate.process", "gate.watchdog"]);
			t.match(statesOf(running), { "gate.process": "finding high" });
			t.match(evidenceOf(running, "gate.watchdog"), /WatchdogSec.*\n.*Restart/);
			t.match(
				evidenceOf(running, "gate.process"),
				/CapEff 0*2000.*\n(?:.*\n)*it is in the host's network/,
			);
			await host.sh("rm /etc/systemd/system/llamagate.service.d/zz-test.conf");
			await host.sh(commandOf(running, "gate.process"));
			await comeOut(t, ids, "mended by its fix");

			await addDropIn("llamagate.service", "[Service]\nMemoryMax=2G\n");
			t.strictSame(
				statesOf(await examine(host, Object.keys(ids))),
				ids,
				"a drop-in that weakens nothing is none of these",
			);
			await removeDropIn("llamagate.service");
		});

		await t.test("an upgrade that does not run yet", async (t) => {
			const file = "/usr/lib/llamagate/app/package.json";
			await host.sh(
				`sed -i 's/"version": "[^"]*"/"version": "99.0.0"/' ${file}`,
			);
			const found = await examine(host, ["gate.version"]);
			t.match(statesOf(found), { "gate.version": "finding warn" });
			t.match(evidenceOf(found, "gate.version"), /runs, and 99\.0\.0 is inst/);
			await host.sh(commandOf(found, "gate.version"));
			await comeOut(t, { "gate.version": "ok" }, "mended by its fix");
			await host.sh(`cp /usr/lib/llamagate/bin/node /usr/lib/llamagate/bin/new
				mv /usr/lib/llamagate/bin/new /usr/lib/llamagate/bin/node`);
			const node = await examine(host, ["gate.version"]);
			t.match(statesOf(node), { "gate.version": "finding warn" });
			t.match(evidenceOf(node, "gate.version"), /Node .* was replaced/);
			await host.sh(commandOf(node, "gate.version"));
			await comeOut(t, { "gate.version": "ok" }, "mended by its fix");
		});
	},
);

const nowMs = Date.parse("2026-06-01T00:00:00Z");
const entry = (name: string, rest: Partial<KeyEntry> = {}): KeyEntry => ({
	name,
	sha256: "0".repeat(64),
	...rest,
});

t.test("a gate that does not say when it read its files", async (t) => {
	const status = {
		keys: ["a"],
		lastReload: { at: "2026-06-01T00:00:00Z", ok: true },
	};
	const changed = [{ file: "/keys", atMs: nowMs + 500 }];
	t.equal(judgeInForce({ stored: ["a"], status, changed }).state, "ok");
	const later = [{ file: "/keys", atMs: nowMs + 5_000 }];
	t.equal(
		judgeInForce({ stored: ["a"], status, changed: later }).state,
		"finding",
	);
});

t.test("which keys count as unused", async (t) => {
	const state = (keys: KeyEntry[], startedAt: string, lastUsed?: string) =>
		judgeUse(
			keys,
			{
				startedAt,
				keyUse:
					lastUsed === undefined ? {} : { a: { lastUsed, lastFrom: "x" } },
			},
			nowMs,
		).state;
	const old = entry("a", { created: "2020-01-01T00:00:00Z" });
	const longAgo = "2026-01-01T00:00:00Z";
	const lately = "2026-05-30T00:00:00Z";
	t.equal(state([old], longAgo), "finding");
	t.equal(state([old], longAgo, lately), "ok");
	t.equal(state([old], longAgo, longAgo), "finding");
	t.equal(state([old], lately), "unknown");
	t.equal(state([entry("a")], lately), "unknown", "it may be old");
	t.equal(state([entry("a", { created: lately })], longAgo), "ok");
	t.equal(state([{ ...old, canary: true }], longAgo), "ok", "a canary waits");
	t.equal(judgeRotation([entry("a")], nowMs).state, "unknown");
	t.equal(judgeRotation([old], nowMs).state, "finding");
	t.equal(judgeRotation([{ ...old, canary: true }], nowMs).state, "ok");
});

t.test("what in the journal is a canary's use", async (t) => {
	const log = `{"event":"auth_failed","ip":"1.2.3.4","path":"canary_used"}
canary_used
{"event":"canary_used","key":"trap","ip":"100.64.0.9","time":"2026-05-01T00:00:00Z"}
{"event":"canary_used"
`;
	const uses = readCanaryUses(log);
	t.strictSame(uses, [
		{ key: "trap", ip: "100.64.0.9", at: "2026-05-01T00:00:00Z" },
	]);
	const trap = entry("trap", { canary: true, created: "2026-04-01T00:00:00Z" });
	t.equal(judgeCanaries([trap], uses).state, "finding");
	t.equal(judgeCanaries([entry("trap")], uses).state, "absent");
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

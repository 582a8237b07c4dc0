import t, { type Test } from "tap";
import {
	judgeCanaries,
	judgeInForce,
	judgeRotation,
	judgeUse,
	readCanaryUses,
} from "../../src/host/gate/keys.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { generateKey } from "../../src/keys/newKey.ts";
import { bootHost, booting } from "../support/bootedHost.ts";
import {
	comesOut,
	commandOf,
	evidenceOf,
	examine,
	statesOf,
} from "../support/doctor.ts";
import { runSetup } from "../support/setupHost.ts";

const keysFile = "/etc/llamagate/keys.json";
const configFile = "/etc/llamagate/config.json";
const dayMs = 86_400_000;

/** A clock of doctor's that is ahead. */
const ahead = (days: number) => [
	"env",
	`NODE_OPTIONS=--import=data:text/javascript,${encodeURIComponent(
		`const now = Date.now; Date.now = () => now() + ${days * dayMs};`,
	)}`,
];

t.test("the keys of a gate on a booted host", booting(), async (t) => {
	const host = await bootHost(t, { llamagate: "installed" });
	const { code, report } = await runSetup(
		host,
		"--yes",
		...["account", "ollama", "gate"].flatMap((step) => ["--only", step]),
	);
	t.equal(code, 0, JSON.stringify(report));

	const comeOut = (t: Test, wanted: Record<string, string>, message: string) =>
		comesOut(t, host, wanted, message);

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
			{ "gate.in-force": "critical" },
			"a key that is gone from the file alone",
		);
		t.match(evidenceOf(revoked, "gate.in-force"), /still let in: second/);
		await host.sh(commandOf(revoked, "gate.in-force"));
		t.match(statesOf(await found()), { "gate.in-force": "ok" });

		await writeKeys(keys);
		t.match(
			statesOf(await found()),
			{ "gate.in-force": "high" },
			"a key that is in the file alone",
		);
		await reloaded();

		const config = await host.read(configFile);
		await host.write(configFile, '{ "drainTimeout": "soon" }', 0o640);
		await host.sh(`systemctl kill -s HUP llamagate
			until journalctl -b -q -u llamagate | grep -q "reload refused"; do sleep 0.1; done`);
		const broken = await found();
		t.match(
			statesOf(broken),
			{ "gate.in-force": "high" },
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
			statesOf(await found()),
			{ "gate.in-force": "ok" },
			"another date, and the same words",
		);
		await host.sh(`echo >>${configFile}; touch -d '+1 hour' ${configFile}`);
		t.match(
			evidenceOf(await found(), "gate.in-force"),
			/config\.json was changed at/,
			"a configuration that was changed since",
		);
		await host.sh(`touch -d '-1 hour' ${configFile}`);
		await reloaded();
		t.match(statesOf(await found()), { "gate.in-force": "ok" });
	});

	await t.test("keys that want attention", async (t) => {
		const ids = ["gate.expiry", "gate.unused-keys", "gate.rotation"];
		await host.sh("llamagate keys add soon --expires 3d");
		const found = await examine(host, ["gate.expiry"]);
		t.match(statesOf(found), { "gate.expiry": "warn" });
		t.match(evidenceOf(found, "gate.expiry"), /^the key soon expires soon: /);
		t.match(
			evidenceOf(await examine(host, ["gate.expiry"], ahead(4)), "gate.expiry"),
			/^the key soon has expired: /,
		);
		await host.sh(commandOf(found, "gate.expiry"));
		t.strictSame(
			statesOf(await examine(host, ids)),
			Object.fromEntries(ids.map((id) => [id, "ok"])),
		);

		const later = await examine(host, ids, ahead(100));
		t.match(statesOf(later), {
			"gate.unused-keys": "warn",
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
			"gate.rotation": "warn",
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
			"gate.rotation": "warn",
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
		await comeOut(t, { "gate.canary": "high" }, "is told of");
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
			t.match(statesOf(found), { "gate.files": severity }, fault);
			await host.sh(commandOf(found, "gate.files"));
			t.match(statesOf(await examine(host, ["gate.files"])), {
				"gate.files": "ok",
			});
		}
	});
});

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
	t.equal(judgeInForce({ names: ["a"], status, changed }).state, "ok");
	const later = [{ file: "/keys", atMs: nowMs + 5_000 }];
	t.equal(
		judgeInForce({ names: ["a"], status, changed: later }).state,
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

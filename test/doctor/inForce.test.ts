import { link, symlink, utimes, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askWhetherHas } from "../../src/admin/client.ts";
import { lastChangeMs } from "../../src/config/ordinaryFile.ts";
import { BadFileError } from "../../src/errors.ts";
import { Reloader } from "../../src/gate/reload.ts";
import type { Rules } from "../../src/gate/rules.ts";
import { readStored } from "../../src/host/gate/inForce.ts";
import { judgeInForce } from "../../src/host/gate/keys.ts";
import { createLog } from "../../src/log.ts";
import {
	eventually,
	startGate,
	temporaryFolder,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { commonPair } from "../support/tlsRelay.ts";

const reloadedAtMs = Date.parse("2026-06-01T00:00:00Z");
const at = new Date(reloadedAtMs).toISOString();
const hour = 3_600_000;

t.test(
	"every file that a gate reads at its start and at reloads alone is looked at",
	async (t) => {
		const folder = await temporaryFolder(t);
		const { cert, key } = await commonPair(t);
		const files = {
			"config.json": JSON.stringify({
				listen: {
					...{ address: "127.0.0.1", port: 0 },
					tls: {
						certFile: "gate.crt",
						keyFile: "gate.key",
						name: "server.tail1234.ts.net",
					},
				},
				upstreams: [
					{ name: "mini", url: "http://127.0.0.1:1", keyFile: "mini.key" },
				],
				state: {
					url: "unix:/run/valkey.sock",
					passwordFile: "valkey.password",
				},
			}),
			"keys.json": JSON.stringify({
				keys: [
					{
						...testEntries[0],
						people: { jwt: { secretFile: "webui.secret" } },
					},
				],
			}),
			"mini.key": testKeys.owner,
			"valkey.password": "2f8b0c6e9a",
			"webui.secret": "0123456789abcdef".repeat(4),
		};
		for (const [name, text] of Object.entries({
			...files,
			...{ "gate.crt": cert, "gate.key": key },
		}))
			await writeFile(path.join(folder, name), text, { mode: 0o600 });
		const { names, changed } = await readStored(
			path.join(folder, "config.json"),
		);
		t.strictSame(names, ["user"]);
		t.strictSame(
			changed.map(({ file }) => path.relative(folder, file)).sort(),
			Object.keys(files).sort(),
			"certificates are taken over without a reload",
		);
	},
);

t.test("what is put back with its old date is new", async (t) => {
	const folder = await temporaryFolder(t);
	const file = path.join(folder, "keys.json");
	const beforeMs = Date.now() - 1_000;
	await writeFile(file, "{}");
	await utimes(file, 1, 1);
	t.ok((await lastChangeMs(file)) >= beforeMs);
	const link = path.join(folder, "link");
	await symlink("/etc", link);
	t.ok((await lastChangeMs(link)) >= beforeMs, "so is a link to what is old");
});

t.test("a gate that has not read what was changed is told of", async (t) => {
	const judge = (atMs: number, restart: readonly string[] = []) =>
		judgeInForce({
			names: ["a"],
			status: { keys: ["a"], lastReload: { at, ok: true }, restart },
			changed: [{ file: "/etc/llamagate/webui.secret", atMs }],
		});
	t.match(judge(reloadedAtMs - hour), { state: "ok" });
	t.match(judge(reloadedAtMs + hour), {
		state: "finding",
		evidence: [/^\/etc\/llamagate\/webui\.secret was changed at /],
	});
	t.match(judge(reloadedAtMs - hour, ["state"]), {
		state: "finding",
		evidence: [/started with of: state$/],
		fix: "sudo systemctl restart llamagate",
	});
});

t.test("a hard link to a file makes no other file of it", async (t) => {
	const state = { url: "valkey://127.0.0.1:9", passwordFile: "password" };
	const gate = await startGate(t, {
		config: { state },
		files: { password: "2f8b0c6e9a" },
	});
	const file = path.join(gate.folder, "password");
	const look = async () => {
		const { mark } = await readStored(gate.configFile);
		return askWhetherHas(path.join(gate.folder, "admin.sock"), mark);
	};
	t.equal(await look(), true);
	await link(file, path.join(gate.folder, "backup"));
	t.equal(await look(), true, "only its ctime is new");
	await writeFile(file, "another");
	await utimes(file, 1, 1);
	t.equal(await look(), false, "whatever its date says");
	t.match(await gate.daemon.reload(), { ok: true });
	t.equal(await look(), true);
});

t.test("a reload is dated before the files that it reads", async (t) => {
	let readAtMs = 0;
	const rules = {} as Rules;
	const reloader = new Reloader(
		rules,
		{ at: new Date(0), mark: "" },
		async () => {
			readAtMs = Date.now();
			await eventually(() => Date.now() > readAtMs);
			throw new BadFileError("keys.json", []);
		},
		() => ({ restart: [], ledgerRestart: false }),
		createLog("silent", { write() {} }),
	);
	await reloader.reload();
	t.ok(reloader.last.at.getTime() <= readAtMs);
});

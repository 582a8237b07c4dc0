import { writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { runCli, startGate } from "../support/gate.ts";

const saysRestart = (line: { msg?: unknown }) =>
	/takes a restart/.test(String(line.msg));

t.test(
	"a reload and status say which sections take a restart, until none does",
	async (t) => {
		const gate = await startGate(t);
		const cli = (command: string) =>
			runCli([command, "--config", gate.configFile]);
		const changed = {
			...{ admin: { metrics: "127.0.0.1:9465" } },
			ledger: { socket: path.join(gate.folder, "ledger.sock") },
			state: { url: `unix:${path.join(gate.folder, "valkey.sock")}` },
		};
		await gate.writeConfig(changed);
		for (const time of ["at first", "and each time"]) {
			const { code, stdout } = await cli("reload");
			t.equal(code, 0, time);
			t.match(stdout, /^Reloaded: \d key\(s\) in force\.\n/);
			t.match(
				stdout,
				"admin, ledger, state: changed since the gate's start, which takes a restart: sudo systemctl restart llamagate",
			);
			t.equal(gate.log.filter(saysRestart).length, 3, time);
			gate.log.splice(0);
		}
		t.match(
			(await cli("status")).stdout,
			/look {2}restart: admin, ledger, state: changed since/,
		);
		t.match(await gate.daemon.reload(), {
			ok: true,
			restart: ["admin", "ledger", "state"],
		});
		gate.log.splice(0);

		await gate.writeConfig({});
		const back = await cli("reload");
		t.notMatch(back.stdout, "restart");
		t.same(gate.log.filter(saysRestart), [], "what runs is what the file says");
		t.notMatch((await cli("status")).stdout, "restart:");
	},
);

t.test("a new password of Valkey's takes a restart", async (t) => {
	const state = {
		url: "valkey://127.0.0.1:9",
		passwordFile: "valkey.password",
	};
	const gate = await startGate(t, {
		files: { "valkey.password": "2f8b0c6e9a" },
		config: { state },
	});
	const write = (password: string) =>
		writeFile(path.join(gate.folder, "valkey.password"), password);
	const restartAfter = async (question: string) => {
		const admin = path.join(gate.folder, "admin.sock");
		await askDaemon(admin, question);
		const { body } = await askDaemon(admin, "GET /status");
		return (JSON.parse(body) as { restart: unknown }).restart;
	};
	t.strictSame(await restartAfter("POST /reload"), []);
	await write("another");
	await gate.writeConfig({ state, drainTime: "3s" });
	t.strictSame(
		await restartAfter("POST /reload/keys"),
		[],
		"it has read the keys alone",
	);
	await gate.writeConfig({ state });
	t.strictSame(await restartAfter("POST /reload"), ["state"]);
	await gate.writeConfig({ state, drainTime: "3s" });
	t.strictSame(
		await restartAfter("POST /reload/keys"),
		["state"],
		"it still goes on with the old one",
	);
	await write("2f8b0c6e9a");
	await gate.writeConfig({ state });
	t.strictSame(await restartAfter("POST /reload"), []);
});

t.test("changed alarms take a restart of the ledger", async (t) => {
	const ledger = {};
	const gate = await startGate(t, { config: { ledger } });
	const alarms = [{ url: "https://ntfy.example/a-secret-topic" }];
	await gate.writeConfig({ ledger, alarms });
	const { code, stdout } = await runCli([
		...["reload", "--config", gate.configFile],
	]);
	t.equal(code, 0, stdout);
	t.match(
		stdout,
		"alarms, or the hosts that they name: changed, which takes a restart of the ledger: sudo systemctl restart llamagate-ledger",
	);
	const again = await runCli(["reload", "--config", gate.configFile]);
	t.notMatch(again.stdout, "alarms");
	const host = (name: string, port: number) => ({
		...{ name, url: `http://127.0.0.1:${port}` },
	});
	const [first, second] = [host("a", 9), host("b", 19)];
	for (const [upstreams, ledgerRestart] of [
		[[first, second], true],
		[[second, first], false],
		[[first], false],
		[[first, second], true],
	] as const) {
		await gate.writeConfig({ ledger, alarms, upstreams });
		t.match(await gate.daemon.reload(), { ok: true, ledgerRestart });
	}
});

t.test(
	"no other section takes one, and a refused reload says nothing of it",
	async (t) => {
		const gate = await startGate(t);
		await gate.writeConfig({ sources: ["127.0.0.1"], drainTimeout: "3s" });
		t.match(await gate.daemon.reload(), { ok: true, restart: [] });
		await gate.writeConfig({ drainTime: "3s" });
		const { code, stderr } = await runCli([
			...["reload", "--config", gate.configFile],
		]);
		t.equal(code, 78);
		t.notMatch(stderr, "restart");
	},
);

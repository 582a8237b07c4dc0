import { writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { spawnGate } from "../support/gate.ts";
import { memoryMiB } from "../support/process.ts";
import { honestStatus, within } from "../support/raw.ts";
import { tinyDisk } from "../support/tinyDisk.ts";
import { requireRoot } from "../support/tools.ts";

const lost = "log lines were lost: nobody took them";

/** A keys file whose one mistake makes a log line of a MiB. */
const badKeys = JSON.stringify({ keys: [], ["x".repeat(2 ** 20)]: 1 });

t.test(
	"a log that nobody reads holds up no request, costs bounded memory, and what is lost of it is counted and said",
	async (t) => {
		const gate = await spawnGate(t);
		const { child } = gate;
		const socket = path.join(gate.folder, "admin.sock");
		const before = await memoryMiB(child.pid);
		child.stdout?.pause();
		await writeFile(gate.keysFile, badKeys, { mode: 0o600 });
		const reloads = 40;
		for (let n = 0; n < reloads; n++) await askDaemon(socket, "POST /reload");
		t.equal(await honestStatus(gate), 200, "requests are served");
		const { body } = await askDaemon(socket, "GET /metrics");
		const counted = Number(
			/^llamagate_log_lines_lost_total (\d+)$/m.exec(body)?.[1],
		);
		t.ok(counted > reloads / 4, `${counted} lines were lost`);
		const grown = (await memoryMiB(child.pid)) - before;
		t.ok(grown < 200, `it has grown by ${Math.round(grown)} MiB`);

		child.stdout?.resume();
		const { lines } = await within(
			gate.logged(({ msg }) => msg === lost),
			"the line that says so",
		);
		t.equal(lines, counted);
		const refused = gate.log.filter(({ mistakes }) => mistakes !== undefined);
		t.ok(refused.length + Number(lines) >= reloads, "and the rest was kept");
	},
);

t.test("a daemon whose log nobody takes ends when it is told to", async (t) => {
	const hanging = await spawnGate(t);
	hanging.child.stdout?.pause();
	await endWithMuchToLog(hanging);
	t.equal(hanging.child.signalCode, "SIGKILL", "though not by a regular end");

	if (!requireRoot(t)) return;
	const { folder } = await tinyDisk(t);
	const full = await spawnGate(t, { logFile: path.join(folder, "log") });
	t.equal(await endWithMuchToLog(full), 0);
});

async function endWithMuchToLog(
	gate: Awaited<ReturnType<typeof spawnGate>>,
): Promise<number | null> {
	await writeFile(gate.keysFile, badKeys, { mode: 0o600 });
	await askDaemon(path.join(gate.folder, "admin.sock"), "POST /reload");
	gate.child.kill("SIGTERM");
	return within(gate.exited, "the daemon's end");
}

t.test(
	"a log on a full disk holds up no request, and goes on when there is room",
	async (t) => {
		if (!requireRoot(t)) return;
		const disk = await tinyDisk(t);
		const gate = await spawnGate(t, {
			logFile: path.join(disk.folder, "log"),
		});
		await writeFile(gate.keysFile, badKeys, { mode: 0o600 });
		const socket = path.join(gate.folder, "admin.sock");
		const reloads = 5;
		for (let n = 0; n < reloads; n++) await askDaemon(socket, "POST /reload");
		t.equal(await honestStatus(gate), 200, "requests are served");
		t.equal(disk.freeBytes(), 0);
		disk.makeRoom();
		// What found no room is tried again with the next line.
		t.equal(await honestStatus(gate), 200);
		await within(
			gate.logged(({ route }) => route === "GET /api/version"),
			"the line of the request",
		);
		t.equal(
			gate.log.filter(({ mistakes }) => mistakes !== undefined).length,
			reloads,
			"no line is missing, and each is whole",
		);
	},
);

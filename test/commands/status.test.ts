import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import { text } from "node:stream/consumers";
import t, { type Test } from "tap";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const main = path.join(import.meta.dirname, "../../src/main.ts");

const wellOff = {
	version: "0.1.0",
	pid: 7,
	startedAt: new Date().toISOString(),
	listening: ["local", "100.101.102.104:11434"],
	keys: ["laptop"],
	keyUse: {},
	lastReload: { at: new Date().toISOString(), ok: true },
	connections: 3,
	streams: 1,
	lockedOut: 0,
};

/** What `status` prints while a daemon gives this answer; `undefined` for none. */
async function statusOf(t: Test, answer: unknown, ...options: string[]) {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket } }));
	if (answer !== undefined) {
		const server = createServer((_, res) =>
			res.end(typeof answer === "string" ? answer : JSON.stringify(answer)),
		);
		t.teardown(() => server.close());
		await once(server.listen(socket), "listening");
	}
	const child = spawn(process.execPath, [
		...[main, "status", "--config", config, ...options],
	]);
	const [stdout, stderr] = await Promise.all([
		text(child.stdout),
		text(child.stderr),
		once(child, "close"),
	]);
	return { stdout, stderr, code: child.exitCode };
}

t.test("status says how the gate does", async (t) => {
	const { stdout, stderr } = await statusOf(t, wellOff);
	t.equal(stderr, "");
	t.match(stdout, /ok {4}gate: llamagate 0\.1\.0, process 7, up for \d+ s\n/);
	t.match(stdout, /ok {4}listening: on 100\.101\.102\.104:11434\n/);
	t.match(stdout, /ok {4}keys: 1: laptop\n/);
	t.match(stdout, / {6}streams: 1, on 3 connection\(s\)/);
	t.match(stdout, /ok {4}files: read \d+ s ago\n/);
	const json = await statusOf(t, wellOff, "--json");
	t.match(JSON.parse(json.stdout), { gate: wellOff });
});

t.test("and what needs attention", async (t) => {
	for (const [answer, says] of [
		[undefined, /look {2}gate: no gate answers on .*ENOENT/],
		[{ ...wellOff, listening: ["local"] }, /look {2}listening: on nothing/],
		[{ ...wellOff, keys: [] }, /look {2}keys: none/],
		[
			{ ...wellOff, lastReload: { ...wellOff.lastReload, ok: false } },
			/look {2}files: refused/,
		],
		["<html>", /look {2}gate: what answers on .* is no gate/],
		["null", /look {2}gate: what answers on .* is no gate/],
		[{ ...wellOff, keys: [1] }, /look {2}gate: what answers on .* is no gate/],
	] as const) {
		const { stdout, code } = await statusOf(t, answer);
		t.match(stdout, says);
		t.equal(code, 1);
	}
});

t.test("what a daemon says writes no line of its own", async (t) => {
	const odd = { ...wellOff, keys: ["\x1b[2J\nok    doctor: all is well"] };
	const { stdout } = await statusOf(t, odd);
	t.notMatch(stdout, "\x1b[2J");
	t.notMatch(stdout, /^ok {4}doctor: all is well/m);
	const json = await statusOf(t, { ...odd, version: "\u009b2J" }, "--json");
	t.notMatch(json.stdout, "\u009b");
});

import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import t, { type Test } from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { runCli } from "../support/gate.ts";
import { program } from "../support/program.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const main = path.resolve(program);

t.test("an answer without an end is none", async (t) => {
	const socket = path.join(await temporaryFolder(t), "admin.sock");
	const server = createServer((_, res) => {
		const more = () => {
			while (res.write("x".repeat(2 ** 16)));
		};
		res.on("drain", more);
		more();
	});
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	await once(server.listen(socket), "listening");
	const { status, code } = await askDaemon(socket, "GET /status");
	t.equal(status, 0);
	t.match(code, /no end/);
});

t.test("what a daemon says does not steer root's terminal", async (t) => {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket } }));
	const mistakes = [{ path: "", message: "\x1b]0;odd\x07" }];
	const server = createServer((_, res) =>
		res.end(JSON.stringify({ ok: false, file: "\x1b[2J", mistakes })),
	);
	t.teardown(() => server.close());
	await once(server.listen(socket), "listening");
	const child = spawn(process.execPath, [main, "reload", "--config", config]);
	let said = "";
	child.stderr.setEncoding("utf8").on("data", (text: string) => {
		said += text;
	});
	await once(child, "close");
	t.match(said, "]0;odd");
	t.notMatch(said, "\x1b");
});

/** The configuration of a daemon that answers so, whatever it is asked. */
async function daemonThatSays(t: Test, status: number, body: string) {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	const config = path.join(folder, "config.json");
	await writeFile(config, JSON.stringify({ admin: { socket } }));
	await writeFile(
		path.join(folder, "keys.json"),
		JSON.stringify({
			keys: ["a", "constructor"].map((name, at) => ({
				...{ name, sha256: String(at).repeat(64) },
			})),
		}),
		{ mode: 0o600 },
	);
	const server = createServer((_, res) => res.writeHead(status).end(body));
	t.teardown(() => server.close());
	await once(server.listen(socket), "listening");
	return config;
}

t.test("reload says of another program that it is no gate", async (t) => {
	for (const [status, body] of [
		[404, "{}"],
		[200, "null"],
		[200, '{"ok":true}'],
		[200, "<html>"],
		[500, '{"ok":false,"file":"a"}'],
		[500, '{"ok":false,"file":"a","mistakes":[null]}'],
	] as const) {
		const config = await daemonThatSays(t, status, body);
		t.match(await runCli(["reload", "--config", config]), {
			code: 1,
			stdout: "",
			stderr: new RegExp(
				`^llamagate reload: what answers on .* is not a gate of this version \\(status ${status}\\); restart it: .*\n$`,
			),
		});
	}
});

t.test("keys list goes on beside one", async (t) => {
	const gate = {
		...{ version: "1", pid: 1, startedAt: "", listening: [], keys: [] },
		...{ connections: 0, streams: 0, lockedOut: 0 },
		lastReload: { at: "", ok: true },
	};
	for (const [told, used] of [
		["null", "?"],
		["<html>", "?"],
		[JSON.stringify({ ...gate, keyUse: { a: null } }), "not yet"],
		[JSON.stringify({ ...gate, keyUse: { a: { lastDay: "1" } } }), "not yet"],
	] as const) {
		const config = await daemonThatSays(t, 200, told);
		const { code, stdout } = await runCli(["keys", "list", "--config", config]);
		t.equal(code, 0);
		for (const name of ["a", "constructor"])
			t.match(
				stdout.split("\n").find((line) => line.startsWith(`${name} `)),
				`never    ${used}`,
			);
	}
});

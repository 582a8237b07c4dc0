import { spawn } from "node:child_process";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import { createServer } from "node:http";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

const main = path.join(import.meta.dirname, "../../src/main.ts");

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

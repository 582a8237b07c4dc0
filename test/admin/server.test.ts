import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFile, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { openAdminServer } from "../../src/admin/server.ts";
import { startGate, temporaryFolder } from "../support/gate.ts";
import { head, honestStatus, openRaw, within } from "../support/raw.ts";

type Log = Parameters<typeof openAdminServer>[2];

/** A door like the one for the counters, on any free port. */
async function openDoor(t: { teardown(action: () => unknown): unknown }) {
	const door = await openAdminServer(
		{ host: "127.0.0.1", port: 0 },
		{
			"GET /metrics": () => ({
				status: 200,
				type: "text/plain; version=0.0.4",
				body: "counters\n",
			}),
		},
		{ warn() {} } as unknown as Log,
	);
	if (door === undefined) throw new Error("the door did not open");
	t.teardown(() => {
		door.close();
		door.closeAllConnections();
	});
	return (door.address() as AddressInfo).port;
}

const get = (host: string) =>
	head("GET /metrics HTTP/1.1", `Host: ${host}`, "Connection: close");

t.test("the counters are shown under loopback's names alone", async (t) => {
	const port = await openDoor(t);
	const statusFor = async (host: string) => {
		const client = await openRaw(port);
		client.write(get(host));
		const [reply] = await client.untilReplies(1);
		client.destroy();
		return { status: reply?.status, told: reply?.body.includes("counters") };
	};
	for (const host of [
		"127.0.0.1",
		`127.0.0.1:${port}`,
		"localhost",
		"LOCALHOST:9464",
		"[::1]:9464",
	])
		t.strictSame(await statusFor(host), { status: 200, told: true }, host);
	for (const host of [
		"evil.example",
		"evil.example:9464",
		"127.0.0.1.evil.example",
		"localhost.evil.example",
		"127.0.0.1@evil.example",
		"127.0.0.1:9464, evil.example",
		"100.64.0.1",
		"",
	])
		t.strictSame(await statusFor(host), { status: 403, told: false }, host);
});

t.test("what no route is named like is no route", async (t) => {
	const port = await openDoor(t);
	for (const target of ["/", "/status", "/metrics/", "constructor"]) {
		const client = await openRaw(port);
		client.write(head(`GET ${target} HTTP/1.1`, "Host: localhost"));
		const [reply] = await client.untilReplies(1);
		t.ok(reply?.status === 404 || reply?.status === 400, target);
		client.destroy();
	}
});

t.test(
	"a local user takes no more than 32 connections of it, and none for long",
	async (t) => {
		const port = await openDoor(t);
		const clients = await Promise.all(
			Array.from({ length: 60 }, () => openRaw(port)),
		);
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		const drip = setInterval(() => {
			for (const client of clients) if (!client.isClosed()) client.write("G");
		}, 500);
		t.teardown(() => clearInterval(drip));
		await within(
			Promise.all(clients.map(({ closed }) => closed)),
			"the door to close every connection",
		);
		const next = await openRaw(port);
		next.write(get("localhost"));
		t.equal((await next.untilReplies(1))[0]?.status, 200);
	},
);

t.test("of sixty connections 28 are closed at once", async (t) => {
	const port = await openDoor(t);
	const clients = await Promise.all(
		Array.from({ length: 60 }, () => openRaw(port)),
	);
	t.teardown(() => {
		for (const client of clients) client.destroy();
	});
	const asked = clients.map(async (client) => {
		client.write(head("GET /metrics HTTP/1.1", "Host: localhost"));
		return (await client.untilReplies(1)).length;
	});
	const served = (await Promise.all(asked)).filter((count) => count === 1);
	t.equal(served.length, 32);
});

t.test(
	"an ordinary file where the admin socket should be stays, and the gate serves without it",
	async (t) => {
		const folder = await temporaryFolder(t);
		const file = path.join(folder, "precious");
		await writeFile(file, "precious");
		const gate = await startGate(t, { config: { admin: { socket: file } } });
		await gate.logged(({ level, path }) => level === "warn" && path === file);
		t.equal(await readFile(file, "utf8"), "precious");
		t.equal(await honestStatus(gate), 200);
	},
);

t.test("a socket that nobody answers on is replaced", async (t) => {
	const folder = await temporaryFolder(t);
	const socket = path.join(folder, "admin.sock");
	// It is killed, so its socket stays.
	const child = spawn(process.execPath, [
		"-e",
		`require("net").createServer().listen(${JSON.stringify(socket)}, () => console.log("up"))`,
	]);
	await once(child.stdout, "data");
	child.kill("SIGKILL");
	await once(child, "exit");
	const gate = await startGate(t, { config: { admin: { socket } } });
	t.equal(await honestStatus(gate), 200);
	t.equal((await askDaemon(socket, "GET /status")).status, 200);
});

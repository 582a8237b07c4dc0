import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import t from "tap";
import {
	type Connection,
	ConnectionTable,
	idleMs,
} from "../../src/gate/connection.ts";
import { openRaw, type RawClient } from "../support/raw.ts";

const intervalMs = 250;

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** A client and its place in a table that is swept by hand. */
async function open(t: Teardown): Promise<{
	table: ConnectionTable;
	connection: Connection;
	client: RawClient;
	sweepFor(ms: number): void;
}> {
	const table = new ConnectionTable(() => 10);
	const server = createServer().listen(0, "127.0.0.1");
	t.teardown(() => server.close());
	await once(server, "listening");
	const { port } = server.address() as { port: number };
	const accepted = once(server, "connection");
	const client = await openRaw(port);
	t.teardown(() => client.destroy());
	const [socket] = (await accepted) as [Socket];
	const connection = table.open(socket, false);
	if (typeof connection === "string") throw new Error(connection);
	return {
		...{ table, connection, client },
		sweepFor(ms) {
			for (let left = ms; left > 0; left -= intervalMs) table.sweep(intervalMs);
		},
	};
}

for (const who of ["stranger", "known"] as const)
	t.test(`a ${who} client's idle connection is closed in time`, async (t) => {
		const { table, connection, sweepFor } = await open(t);
		const { socket } = connection;
		sweepFor(2 * idleMs.known);
		t.notOk(socket.destroyed, "before its first request Node looks after it");
		connection.isUsed = true;
		if (who === "known") t.ok(table.markKnown(connection, "laptop", 1));
		sweepFor(idleMs[who] - intervalMs);
		t.notOk(socket.destroyed, "not before");
		sweepFor(intervalMs);
		t.ok(socket.destroyed);
	});

t.test("a connection that waits for a reply does not idle", async (t) => {
	const { connection, sweepFor } = await open(t);
	const { socket } = connection;
	connection.isUsed = true;
	connection.unanswered = 1;
	sweepFor(2 * idleMs.known);
	t.notOk(socket.destroyed);
	connection.unanswered = 0;
	sweepFor(idleMs.stranger);
	t.ok(socket.destroyed);
});

t.test(
	"a client that does not take what it was answered counts as idle",
	async (t) => {
		const { connection, client, sweepFor } = await open(t);
		const { socket } = connection;
		connection.isUsed = true;
		connection.unanswered = 1;
		client.socket.pause();
		// More than any system takes for it.
		socket.write(Buffer.alloc(64 * 2 ** 20));
		sweepFor(idleMs.stranger - intervalMs);
		t.notOk(socket.destroyed);
		sweepFor(intervalMs);
		t.ok(socket.destroyed);
	},
);

t.test("whatever comes on it, a connection idles anew", async (t) => {
	const { connection, client, sweepFor } = await open(t);
	const { socket } = connection;
	connection.isUsed = true;
	sweepFor(idleMs.stranger - intervalMs);
	client.write("G");
	await once(socket, "data");
	sweepFor(idleMs.stranger);
	t.notOk(socket.destroyed);
	sweepFor(intervalMs);
	t.ok(socket.destroyed);
});

import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import t from "tap";
import { type Connection, ConnectionTable } from "../../src/gate/connection.ts";
import { eventually } from "../support/gate.ts";

const room = 40;

/** A table with room for forty, on real sockets. */
async function openTable(t: { teardown(action: () => unknown): unknown }) {
	const table = new ConnectionTable(() => room);
	const server = createServer({ allowHalfOpen: true });
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => server.close());
	const { port } = server.address() as AddressInfo;
	/** What became of a new connection, and its client. */
	const come = async (localAddress: string) => {
		const accepted = once(server, "connection");
		const client = connect({ host: "127.0.0.1", port, localAddress });
		client.on("error", () => {}).resume();
		t.teardown(() => client.destroy());
		const [socket] = (await accepted) as [Socket];
		socket.resume().once("end", () => socket.destroy());
		const place = table.open(socket, false);
		if (typeof place === "string") socket.destroy();
		return { client, place };
	};
	return { table, come };
}

t.test("strangers that fill all places keep nobody else out", async (t) => {
	const { table, come } = await openTable(t);
	const known: Connection[] = [];
	for (let n = 0; n < 5; n += 1) {
		const { place } = await come("127.0.0.2");
		if (typeof place === "string") throw new Error(place);
		t.equal(table.markKnown(place, "key", 10), true);
		known.push(place);
	}
	const early = await come("127.0.0.7");
	const first = await come("127.0.0.2");
	for (let n = 1; n < 20; n += 1) await come("127.0.0.2");
	t.equal((await come("127.0.0.2")).place, "strangers", "of one address");
	for (let n = 0; n < 14; n += 1) await come("127.0.0.3");
	t.equal(table.isFull, true);
	const honest = await come("127.0.0.9");
	t.type(honest.place, "object");
	await eventually(() => first.client.destroyed);
	t.equal(table.openCount, room);
	t.equal(table.markKnown(honest.place as Connection, "key", 10), true);
	t.equal(early.client.destroyed, false, "who was first and has one place");
	t.ok(
		known.every(({ socket }) => !socket.destroyed),
		"connections with a key are not touched",
	);
});

t.test("nobody gives way to one who then has as many", async (t) => {
	const { table, come } = await openTable(t);
	for (let n = 0; n < room; n += 1)
		t.type((await come(`127.0.2.${n + 1}`)).place, "object");
	t.equal((await come("127.0.0.9")).place, "full");
	t.equal((await come("127.0.2.1")).place, "full");
	t.equal(table.openCount, room);
});

t.test("what has given way is counted once", async (t) => {
	const { table, come } = await openTable(t);
	const clients: Socket[] = [];
	for (const address of ["127.0.0.2", "127.0.0.3"])
		for (let n = 0; n < 20; n += 1) clients.push((await come(address)).client);
	for (let n = 0; n < 10; n += 1)
		clients.push((await come("127.0.0.9")).client);
	t.equal(table.openCount, room);
	for (const client of clients) client.destroy();
	await eventually(() => table.openCount === 0);
	for (let n = 0; n < 20; n += 1)
		t.type((await come("127.0.0.2")).place, "object");
	t.equal((await come("127.0.0.2")).place, "strangers");
});

import { createServer } from "node:net";
import t from "tap";
import {
	NotInTailnet,
	type Resolve,
	tailnetLookup,
} from "../../src/net/tailnetLookup.ts";
import { ask } from "../../src/upstream/ask.ts";
import { Upstream } from "../../src/upstream/client.ts";

const answering =
	(...addresses: string[]): Resolve =>
	(_name, _options, callback) =>
		callback(
			null,
			addresses.map((address) => ({
				address,
				family: address.includes(":") ? 6 : 4,
			})),
		);

function look(resolve: Resolve, all: boolean) {
	return new Promise((done) =>
		tailnetLookup(resolve)("minipc", { all }, (error, ...found) =>
			done(error ?? found),
		),
	);
}

t.test("a name of the tailnet is taken with what it leads to", async (t) => {
	const resolve = answering("100.64.0.7", "fd7a:115c:a1e0::7");
	t.strictSame(await look(resolve, true), [
		[
			{ address: "100.64.0.7", family: 4 },
			{ address: "fd7a:115c:a1e0::7", family: 6 },
		],
	]);
	t.strictSame(await look(resolve, false), ["100.64.0.7", 4]);
});

t.test("a name that leads anywhere else is not dialled", async (t) => {
	for (const addresses of [
		["192.168.1.5"],
		["127.0.0.1"],
		["::1"],
		["203.0.113.7"],
		["100.128.0.1"],
		["100.100.100.100"],
		["fd00::7"],
		["::ffff:10.0.0.1"],
		// One good address does not make up for another.
		["100.64.0.7", "192.168.1.5"],
		[],
	])
		for (const all of [true, false])
			t.ok(
				(await look(answering(...addresses), all)) instanceof NotInTailnet,
				addresses.join(),
			);
});

t.test("a name that is not found is none", async (t) => {
	const error = Object.assign(new Error("no"), { code: "ENOTFOUND" });
	t.equal(
		await look((_name, _options, callback) => callback(error, []), true),
		error,
	);
});

t.test(
	"a connection to a name outside the tailnet is never made",
	async (t) => {
		let connections = 0;
		const server = createServer((socket) => {
			connections += 1;
			socket.destroy();
		});
		await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
		t.teardown(() => server.close());
		const { port } = server.address() as { port: number };
		// Every system's list of hosts has a name that leads to loopback.
		const upstream = new Upstream({
			target: { kind: "tcp", host: "localhost", port },
			connectTimeoutMs: 5_000,
			firstByteTimeoutMs: 5_000,
			idleTimeoutMs: 5_000,
			maxConnections: 1,
		});
		t.match(await ask(upstream, "/", { timeoutMs: 5_000, maxBytes: 10 }), {
			kind: "failed",
			fault: { kind: "unreachable", detail: "ENOTTAILNET" },
		});
		t.equal(connections, 0);
	},
);

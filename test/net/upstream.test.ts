import type { Socket } from "node:net";
import t from "tap";
import type { Settings } from "../../src/config/load.ts";
import {
	Upstream,
	type UpstreamCall,
	type UpstreamFault,
	type UpstreamRequest,
	type UpstreamSink,
} from "../../src/upstream/client.ts";
import { eventually } from "../support/gate.ts";
import { startRawServer } from "../support/rawServer.ts";

type Tap = { teardown(action: () => unknown): unknown };

function open(target: Settings["upstream"]["target"]): Upstream {
	return new Upstream({
		target,
		connectTimeoutMs: 5_000,
		firstByteTimeoutMs: 5_000,
		idleTimeoutMs: 5_000,
		maxConnections: 10,
	});
}

/** A server that answers by hand, and a client to it. */
async function start(t: Tap, answer: (socket: Socket, text: string) => void) {
	const { port, sockets } = await startRawServer(t, (socket) =>
		socket.on("data", (data) => answer(socket, data.toString("latin1"))),
	);
	const upstream = open({ kind: "tcp", host: "127.0.0.1", port });
	t.teardown(() => upstream.destroy());
	return { upstream, sockets };
}

const get: UpstreamCall = {
	method: "GET",
	path: "/api/tags",
	headers: [],
	body: undefined,
};
const reply = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/** What becomes of a call: its body, or the fault. */
function call(
	upstream: Upstream,
	what: UpstreamCall,
): Promise<string | UpstreamFault> {
	return new Promise((resolve) => {
		let body = "";
		let request: UpstreamRequest | undefined;
		const sink: UpstreamSink = {
			head() {},
			data(buffer, start, end) {
				body += buffer.toString("latin1", start, end);
				return true;
			},
			end: () => resolve(body),
			ready() {
				request?.write(Buffer.from("{}"));
				request?.endBody();
			},
			failed: resolve,
		};
		request = upstream.send(what, sink);
	});
}

t.test("nothing in a request can begin a line of its own", async (t) => {
	let connections = 0;
	const { upstream } = await start(t, () => {
		connections += 1;
	});
	for (const odd of ["a\r\nHost: evil", "a\nb", "a\rb", "a\0b", "\x7f"]) {
		await t.rejects(call(upstream, { ...get, headers: ["accept", odd] }));
		await t.rejects(call(upstream, { ...get, path: `/${odd}` }));
	}
	for (const path of ["", "api", "/a b", "/a\u0100"])
		await t.rejects(call(upstream, { ...get, path }));
	t.equal(connections, 0);
});

t.test("a connection carries one request after the other", async (t) => {
	const { upstream, sockets } = await start(t, (socket) => socket.write(reply));
	for (let turn = 0; turn < 5; turn++) t.equal(await call(upstream, get), "{}");
	t.equal(sockets.size, 1);
	t.equal(upstream.active, 0);
	upstream.sweep(performance.now() + 59_000);
	t.equal(await call(upstream, get), "{}");
	t.equal(sockets.size, 1, "one that idles for less than a minute is kept");
	upstream.sweep(performance.now() + 61_000);
	await eventually(() => sockets.size === 0);
});

const lateEnds: [string, (socket: Socket) => void][] = [
	[
		"bytes that nobody asked for",
		(socket) =>
			socket.write("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nPOISON"),
	],
	["its end", (socket) => socket.end()],
	["a reset", (socket) => socket.resetAndDestroy()],
];
for (const [what, act] of lateEnds)
	for (const [kind, next] of [
		["without a body", get],
		["with a body", { ...get, method: "POST", body: Buffer.from("{}") }],
		[
			"with a body that follows",
			{ ...get, method: "POST", body: { length: "2" } },
		],
	] as const)
		t.test(
			`a connection on which there is ${what} is given no request ${kind}, and another is`,
			async (t) => {
				const seen: string[] = [];
				const { upstream, sockets } = await start(t, (socket, text) => {
					seen.push(text);
					const isWhole = text.startsWith("GET") || text.endsWith("{}");
					if (isWhole) socket.write(reply);
				});
				t.equal(await call(upstream, get), "{}");
				const [socket] = sockets;
				if (socket === undefined) throw new Error("there is no connection");
				// With the system by the time the next request is there, and not read yet.
				act(socket);
				t.equal(await call(upstream, next), "{}");
				await eventually(() => sockets.size === 1);
				t.notOk(sockets.has(socket), "it is closed");
				t.equal(
					seen.join("").match(/ HTTP\/1\.1\r\n/g)?.length,
					2,
					"neither request was sent twice",
				);
			},
		);

t.test(
	"a reply that ends with its connection is whole there, unless that is reset",
	async (t) => {
		let reset = false;
		const { upstream } = await start(t, (socket) => {
			socket.write("HTTP/1.1 200 OK\r\n\r\nto the end", () => {
				if (reset) socket.resetAndDestroy();
				else socket.end();
			});
		});
		t.equal(await call(upstream, get), "to the end");
		reset = true;
		t.match(await call(upstream, get), { kind: "died" });
	},
);

t.test(
	"connections of an upstream that is no longer used end with what runs on them",
	async (t) => {
		let held: Socket | undefined;
		const { upstream, sockets } = await start(t, (socket, text) => {
			if (text.startsWith("POST")) held = socket;
			else socket.write(reply);
		});
		await call(upstream, get);
		const running = call(upstream, { ...get, method: "POST" });
		await eventually(() => held !== undefined);
		await call(upstream, get);
		upstream.retire();
		await eventually(() => sockets.size === 1);
		held?.write(reply);
		t.equal(await running, "{}");
		await eventually(() => sockets.size === 0);
	},
);

t.test(
	"nobody at the port: unreachable, with the system's word for it",
	async (t) => {
		const { upstream, sockets } = await start(t, () => {});
		const gone = open({ kind: "unix", socketPath: "/nonexistent/ollama.sock" });
		t.same(await call(gone, get), { kind: "unreachable", detail: "ENOENT" });
		t.equal(gone.active, 0);
		t.equal(sockets.size + upstream.active, 0);
	},
);

import { subscribe, unsubscribe } from "node:diagnostics_channel";
import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import { setImmediate as nextTurn } from "node:timers/promises";
import t, { type Test } from "tap";
import { makeAuthority } from "../support/certificates.ts";
import { eventually, startGate, testKeys } from "../support/gate.ts";
import { send, waitUntil } from "../support/queue.ts";
import {
	attack,
	framed,
	head,
	honestStatus,
	openRaw,
	type RawClient,
	shows,
	within,
} from "../support/raw.ts";
import { requireTool } from "../support/tools.ts";

/** What linger.ts reads of a stranger's connection, in the three seconds that it has. */
const fastReads = (3_000 / 25) * 8;
const slowReads = 3_000 / 250;
/** As many of one address are read fast. */
const mostFast = 4;
/** Read in one go with what was awaited. */
const leeway = 5;

const foreign = "127.1.0.1";
const lockedOut = "127.0.0.99";
const long = "Content-Length: 1000000000";
const chunked = "Transfer-Encoding: chunked";

/** What is refused, where from, and with what status. */
const refused: Record<string, readonly [string, number, string?]> = {
	"a long body": [framed([long], ""), 401],
	"a long body that begins": [framed([long], '{"model":"'), 401],
	"a body in chunks": [framed([chunked], ""), 401],
	"a body that waits for 100 Continue": [
		framed([long, "Expect: 100-continue"], ""),
		401,
	],
	"a form": [
		framed([long, "Content-Type: multipart/form-data; boundary=x"], "--x"),
		401,
	],
	"HTTP/1.0": [framed([long], "", undefined, "1.0"), 401],
	"a request for an upgrade": [
		framed([long, "Connection: Upgrade", "Upgrade: h2c"], ""),
		401,
	],
	"an unknown path": [head("PUT /no/such HTTP/1.1", "Host: gate", long), 401],
	"a wrong key": [framed([long], "", testKeys.wrong), 401],
	"a preflight with a body": [
		head(
			"OPTIONS /api/chat HTTP/1.1",
			"Host: gate",
			"Origin: https://chat.example",
			"Access-Control-Request-Method: POST",
			long,
		),
		204,
	],
	"a tunnel": [head("CONNECT ollama:11434 HTTP/1.1", "Host: gate"), 401],
	"no HTTP": ["hello gate\r\n\r\n", 400],
	"a foreign source": [framed([long], ""), 403, foreign],
	"a source that is locked out": [framed([long], ""), 429, lockedOut],
};

/** The gate's end of every connection that was opened since. */
function gateSockets(t: Test): Socket[] {
	const sockets: Socket[] = [];
	const see = (message: unknown) =>
		void sockets.push((message as { socket: Socket }).socket);
	subscribe("net.server.socket", see);
	t.teardown(() => unsubscribe("net.server.socket", see));
	return sockets;
}

/** Counts what a socket reads from the system from now on, in pieces. */
function countReads(socket: Socket | undefined): () => number {
	let reads = 0;
	if (socket === undefined) return () => reads;
	const push = socket.push.bind(socket);
	socket.push = (piece, encoding) => {
		if (piece !== null) reads += 1;
		return push(piece, encoding);
	};
	return () => reads;
}

/** Sends one byte after the other, each in a packet of its own, until the gate takes no more. */
function drip({ socket }: RawClient): void {
	socket.setNoDelay(true);
	const next = () => {
		if (!socket.destroyed) socket.write("x", () => setImmediate(next));
	};
	next();
}

t.test(
	"of what is sent behind a refusal in packets of one byte few are read",
	async (t) => {
		const gate = await startGate(t, {
			config: {
				sources: ["127.0.0.0/16"],
				cors: { origins: ["https://chat.example"] },
				limits: { authFailures: { max: 2 } },
			},
		});
		for (const wrong of [testKeys.wrong, testKeys.wrong.replace("lg_", "")])
			await attack(gate, framed([], "", wrong), lockedOut);
		const sockets = gateSockets(t);
		const waits: Promise<void>[] = [];
		const counted = await Promise.all(
			Object.entries(refused).map(async ([what, [bytes, status, from]], n) => {
				const address = from ?? `127.0.0.${20 + n}`;
				for (let opened = 0; opened < mostFast + 2; opened++) {
					const client = await openRaw(gate.port, address);
					t.teardown(() => client.destroy());
					// Who is told that nothing more will come need not stop.
					client.socket.allowHalfOpen = true;
					client.write(bytes);
					t.equal((await client.untilReplies(1))[0]?.status, status, what);
					waits.push(within(client.closed, "the gate to close it"));
					drip(client);
				}
				const ofAddress = sockets.filter(
					({ remoteAddress }) => remoteAddress === address,
				);
				return [what, ofAddress.map(countReads)] as const;
			}),
		);
		await Promise.all(waits);
		for (const [what, reads] of counted) {
			const sorted = reads.map((count) => count()).sort((a, b) => b - a);
			for (const [n, count] of sorted.entries()) {
				const most = n < mostFast ? fastReads : slowReads;
				t.ok(count <= most + leeway, `${what}: ${count} reads of ${most}`);
			}
		}
		t.equal(await honestStatus(gate), 200);
	},
);

t.test(
	"the rest of a short body is read in few turns, and the connection goes on",
	async (t) => {
		const gate = await startGate(t);
		const sockets = gateSockets(t);
		const slow = await openRaw(gate.port, "127.0.0.2");
		t.teardown(() => slow.destroy());
		slow.write(framed(["Content-Length: 60000"], ""));
		t.equal((await slow.untilReplies(1))[0]?.status, 401);
		const socket = sockets.find(
			({ remotePort }) => remotePort === slow.socket.localPort,
		);
		let reads = 0;
		let seen = socket?.bytesRead ?? 0;
		drip(slow);
		while (!slow.isClosed()) {
			await nextTurn();
			const bytesRead = socket?.bytesRead ?? 0;
			if (bytesRead > seen) reads += 1;
			seen = bytesRead;
		}
		t.ok(reads <= 3_000 / 25 + leeway, `${reads} reads`);

		const client = await openRaw(gate.port, "127.0.0.3");
		t.teardown(() => client.destroy());
		client.write(framed(["Content-Length: 2000"], ""));
		await client.untilReplies(1);
		const half = "x".repeat(1_000);
		const next = framed(["Content-Length: 1000"], half);
		client.write(half);
		await nextTurn();
		// The next request comes with the end of this one.
		client.write(half + next + next);
		const replies = await client.untilReplies(3);
		t.strictSame(
			replies.map(({ status }) => status),
			[401, 401, 401],
		);
		client.write(
			head("GET /api/version HTTP/1.1", "Host: gate", shows(testKeys.user)),
		);
		t.equal((await client.untilReplies(4))[3]?.status, 200);
	},
);

/** As much of a large body is read before its turn where a body may have 1 MiB (src/gate/requestBody.ts). */
const readAhead = 576 * 1024;
/** Handshakes that one address may begin at once (src/gate/handshakes.ts). */
const handshakesAtOnce = 128;

t.test(
	"what comes while a handshake waits for its turn is left to the system",
	async (t) => {
		if (!requireTool(t, "openssl")) return;
		const { issue } = await makeAuthority(t);
		const pair = await issue();
		const { daemon } = await startGate(t, {
			config: {
				listen: { tls: { certFile: "gate.crt", keyFile: "gate.key" } },
				// What one address may ask for, it may have handshakes for.
				limits: { perSource: { requestsPerMinute: 600 } },
			},
			files: { "gate.crt": pair.cert, "gate.key": pair.key },
		});
		const port = Number(daemon.bound()[0]?.split(":").at(-1));
		const sockets = gateSockets(t);
		const open = async () => {
			const client = await openRaw(port, "127.0.0.2");
			t.teardown(() => client.destroy());
			client.socket.setNoDelay(true);
			// The first byte of a record that is a handshake.
			client.write("\x16");
			return client;
		};
		for (let n = 0; n < handshakesAtOnce + 100; n += 4)
			await Promise.all([open(), open(), open(), open()]);
		const last = await open();
		const socket = await new Promise<Socket>((resolve) => {
			void eventually(() => {
				const found = sockets.find(
					({ remotePort, bytesRead }) =>
						remotePort === last.socket.localPort && bytesRead > 0,
				);
				if (found !== undefined) resolve(found);
				return found !== undefined;
			});
		});
		const reads = countReads(socket);
		for (let n = 0; n < 200; n++) {
			await new Promise((resolve) => last.socket.write("x", resolve));
			await nextTurn();
		}
		t.ok(reads() <= 1, `${reads()} reads`);
	},
);

t.test(
	"a short body behind a refusal that is held back is not kept",
	async (t) => {
		const gate = await startGate(t);
		const requests: IncomingMessage[] = [];
		const see = (message: unknown) =>
			void requests.push((message as { request: IncomingMessage }).request);
		// An address gets a thousand refusals at once (src/gate/refusalThrottle.ts).
		const others = await Promise.all(
			Array.from({ length: 25 }, () => openRaw(gate.port, "127.0.0.2")),
		);
		const keyless = head("GET / HTTP/1.1", "Host: gate");
		for (const client of others) {
			t.teardown(() => client.destroy());
			client.write(keyless.repeat(60));
		}
		await others[0]?.untilReplies(1);
		const waiting = Array.from({ length: 400 }, async () => {
			const client = await openRaw(gate.port, "127.0.0.2");
			t.teardown(() => client.destroy());
			client.write(keyless);
		});
		await Promise.all(waiting);
		subscribe("http.server.request.start", see);
		t.teardown(() => unsubscribe("http.server.request.start", see));
		const client = await openRaw(gate.port, "127.0.0.2");
		const bytes = framed(["Content-Length: 1000"], "x".repeat(500));
		client.write(bytes);
		const cameWhole = ({ method, socket }: IncomingMessage) =>
			method === "POST" && socket.bytesRead >= bytes.length;
		await eventually(() => requests.some(cameWhole));
		await nextTurn();
		t.equal(requests.find(cameWhole)?.readableLength, 0);
		client.write("x".repeat(500));
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.status, 401);
		t.equal(reply?.headers.connection, "keep-alive");
		client.destroy();
	},
);

t.test(
	"what comes of a large body that waits for its turn is left to the system",
	async (t) => {
		const gate = await startGate(t, {
			config: {
				queue: { mode: "fair", parallel: 1 },
				// So there is no room for all of it.
				limits: { body: "1MiB" },
			},
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/chat" ? "hang" : undefined,
			},
		});
		const running = send(gate, { path: "/api/chat" });
		t.teardown(() => running.leave());
		await waitUntil(gate, 0, 1);
		const requests: IncomingMessage[] = [];
		const see = (message: unknown) =>
			void requests.push((message as { request: IncomingMessage }).request);
		subscribe("http.server.request.start", see);
		t.teardown(() => unsubscribe("http.server.request.start", see));
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		client.write(
			head(
				...["POST /api/chat HTTP/1.1", "Host: gate", shows(testKeys.user)],
				"Content-Length: 1000000",
			) + '{"model":"qwen3:8b","prompt":"'.padEnd(readAhead + 1, "x"),
		);
		await waitUntil(gate, 1, 1);
		const request = requests.find(
			({ socket }) => socket.remotePort === client.socket.localPort,
		);
		await eventually(() => (request?.socket.bytesRead ?? 0) > readAhead);
		client.socket.setNoDelay(true);
		for (let n = 0; n < 1_000; n++) {
			client.write("x");
			await nextTurn();
		}
		const held = request?.readableLength ?? 0;
		t.ok(request?.isPaused(), "it waits");
		t.ok(held < 100, `${held} bytes are held`);
	},
);

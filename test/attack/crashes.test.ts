import { createServer, type Socket } from "node:net";
import t from "tap";
import {
	eventually,
	spawnGate,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import {
	attack,
	chunk,
	head,
	honestStatus,
	openRaw,
	post,
	shows,
	statusOf,
} from "../support/raw.ts";

// As the daemon does. Without it Node 24 may wait without an end for requests on
// sockets that were reset, as it frees what it has (node::Environment::CleanupHandles).
process.on("exit", (code) => process.exit(code));

const body = '{"model":"qwen3:8b","stream":false}';

/** What an honest client gets, or the exit code of a daemon that has died. */
async function alive(
	gate: TestGate & { exited: Promise<number | null> },
): Promise<string> {
	return Promise.race([
		honestStatus(gate).then((status) => `answers ${status}`),
		gate.exited.then((code) => `died with exit code ${code}`),
	]);
}

/** Opens a connection, sends, and resets it: at once when `wait` is not given. */
async function sendAndReset(
	port: number,
	bytes: string,
	wait?: (client: Awaited<ReturnType<typeof openRaw>>) => Promise<unknown>,
): Promise<void> {
	const client = await openRaw(port);
	await new Promise<void>((resolve) => {
		client.socket.write(Buffer.from(bytes, "latin1"), () => resolve());
		client.socket.once("close", () => resolve());
	});
	await wait?.(client);
	client.socket.resetAndDestroy();
	await client.closed;
}

const requests: Record<string, string> = {
	"a tunnel": head("CONNECT gate:1 HTTP/1.1", "Host: gate"),
	"a tunnel with a key": head(
		"CONNECT gate:1 HTTP/1.1",
		"Host: gate",
		shows(testKeys.owner),
	),
	"an upgrade": head(
		"GET / HTTP/1.1",
		"Host: gate",
		"Connection: Upgrade",
		"Upgrade: websocket",
	),
	"no HTTP": "\0\x01\x02\r\n\r\n",
	"half a head": "GET / HTTP/1.1\r\nHo",
	"a head that is too large": head(
		"GET / HTTP/1.1",
		`X: ${"y".repeat(20_000)}`,
	),
	"a request without a key": head("GET / HTTP/1.1", "Host: gate"),
	"an upload without a key": post("/api/embed", "x".repeat(100_000)),
	"a wrong Expect": post("/api/embed", body, "Expect: junk"),
	"a request that waits for 100": head(
		"POST /api/embed HTTP/1.1",
		"Host: gate",
		shows(testKeys.user),
		"Expect: 100-continue",
		"Content-Length: 10",
	),
	"a good request": post("/api/embed", body, shows(testKeys.user)),
	"a stream": post(
		"/api/chat",
		'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
		shows(testKeys.user),
	),
	"half a body": `${head("POST /api/chat HTTP/1.1", "Host: gate", shows(testKeys.user), "Content-Length: 200000")}${"x".repeat(100_000)}`,
	"half a chunk": `${head("POST /api/chat HTTP/1.1", "Host: gate", shows(testKeys.user), "Transfer-Encoding: chunked")}ffff\r\nxxx`,
	"a bad chunk": `${head("POST /api/chat HTTP/1.1", "Host: gate", shows(testKeys.user), "Transfer-Encoding: chunked")}${chunk("x")}zz\r\n`,
	"many at once": head("GET / HTTP/1.1", "Host: gate").repeat(50),
};

t.test(
	"the daemon outlives any request on a connection that is reset",
	async (t) => {
		// A process of its own, and a new one for each that dies.
		const spawn = () =>
			spawnGate(t, { config: { limits: { authFailures: { max: 1_000 } } } });
		let gate = await spawn();
		for (const [what, bytes] of Object.entries(requests)) {
			for (let round = 0; round < 10; round++) {
				const { port } = gate;
				await sendAndReset(port, bytes);
				// Once more when there is an answer; what gets none is reset when another client has had one.
				const other = alive(gate);
				await sendAndReset(port, bytes, (client) =>
					Promise.race([client.until((text) => text !== ""), other]),
				);
				await other;
			}
			const outcome = await alive(gate);
			t.equal(outcome, "answers 200", what);
			if (outcome !== "answers 200") gate = await spawn();
		}
	},
);

t.test(
	"a connection that is reset at any byte of a request gives its slot back",
	async (t) => {
		const gate = await startGate(t, {
			config: { limits: { perKey: { concurrent: 1 } } },
			standIn: { firstTokenMs: 5 },
		});
		const request = post("/api/chat", body, shows(testKeys.user));
		const chunked = `${head(
			"POST /api/chat HTTP/1.1",
			"Host: gate",
			shows(testKeys.user),
			"Transfer-Encoding: chunked",
		)}${chunk(body)}0\r\n\r\n`;
		for (const bytes of [request, chunked]) {
			for (let end = 1; end <= bytes.length; end += 3)
				await sendAndReset(gate.port, bytes.slice(0, end));
		}
		await eventually(async () => {
			const { connections, streams } = await statusOf(gate);
			return connections === 0 && streams === 0;
		});
		const { status, replies } = await attack(gate, request);
		t.equal(status, 200, `the one slot is free: ${replies[0]?.body}`);
	},
);

t.test(
	"a client that closes only its own side is gone, and its slot is free",
	async (t) => {
		const gate = await startGate(t, {
			config: { limits: { perKey: { concurrent: 1 } } },
			standIn: { misbehave: () => "hang" },
		});
		for (let round = 0; round < 3; round++) {
			const aborted = new Promise((resolve) =>
				gate.standIn.events.once("abort", resolve),
			);
			const called = new Promise((resolve) =>
				gate.standIn.events.once("body", resolve),
			);
			const client = await openRaw(gate.port);
			client.write(post("/api/chat", body, shows(testKeys.user)));
			await called;
			client.socket.end();
			await client.closed;
			await aborted;
			t.match(
				client.replies(),
				[
					{
						status: 499,
						headers: { connection: "close" },
						body: /^\{"error":"the client closed its side [^"]*"\}$/,
					},
				],
				"it is told, as Ollama tells it",
			);
		}
		t.equal((await statusOf(gate)).streams, 0);
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			outcome: "client_gone",
			reason: undefined,
			status: 499,
		});
	},
);

t.test(
	"a client that closes its own side in an upload, in a stream or behind several requests is told once at most",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { misbehave: () => "stall-mid-stream" },
		});
		const chat = post(
			"/api/chat",
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			shows(testKeys.user),
		);
		const half = `${head("POST /api/chat HTTP/1.1", "Host: gate", shows(testKeys.user), "Content-Length: 200000")}${"x".repeat(100_000)}`;
		const cases: [string, string, number, RegExp][] = [
			["an upload", half, 0, /^HTTP\/1\.1 499 /],
			["a stream", chat, 1, /^HTTP\/1\.1 200 /],
			["several requests", chat.repeat(3), 1, /^HTTP\/1\.1 200 /],
			["no key", post("/api/chat", body), 1, /^HTTP\/1\.1 401 /],
		];
		for (const [what, bytes, replies, begins] of cases) {
			gate.log.length = 0;
			const client = await openRaw(gate.port);
			client.write(bytes);
			if (replies === 1)
				await client.until((text) => /\r\n\r\n.*\{/s.test(text));
			else await eventually(async () => (await statusOf(gate)).streams > 0);
			client.socket.end();
			await client.closed;
			t.match(client.text(), begins, what);
			t.equal(client.text().match(/HTTP\/1\.1 /g)?.length, 1, what);
			await eventually(async () => (await statusOf(gate)).streams === 0);
		}
	},
);

/** An upstream that answers a pull as soon as it has had so many bytes, and never answers a chat. */
async function openHastyUpstream(
	t: { teardown(action: () => unknown): unknown },
	enoughBytes: number,
): Promise<{ url: string; answered: Promise<void> }> {
	const { promise: answered, resolve } = Promise.withResolvers<void>();
	const sockets = new Set<Socket>();
	const server = createServer((socket) => {
		sockets.add(socket);
		socket.on("error", () => {});
		let received = 0;
		let start = "";
		socket.on("data", (data) => {
			received += data.length;
			if (start.length < 20) start += data.toString("latin1", 0, 20);
			if (!start.startsWith("POST /api/pull") || received < enoughBytes) return;
			received = Number.NEGATIVE_INFINITY;
			const line = '{"status":"success"}\n';
			socket.write(
				`${head(
					"HTTP/1.1 200 OK",
					"Content-Type: application/x-ndjson",
					`Content-Length: ${line.length}`,
				)}${line}`,
				() => resolve(),
			);
		});
	});
	await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
	t.teardown(() => {
		server.close();
		for (const socket of sockets) socket.destroy();
	});
	const address = server.address();
	if (address === null || typeof address === "string")
		throw new Error("no port");
	return { url: `http://127.0.0.1:${address.port}`, answered };
}

t.test(
	"the daemon outlives a body that grows past its limit behind a reply that is over",
	async (t) => {
		const upstream = await openHastyUpstream(t, 2 ** 20);
		const gate = await spawnGate(t, { upstreamUrl: upstream.url });
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		// The second reply is over and cannot leave, since the first has not begun.
		client.write(
			post("/api/chat", body, shows(testKeys.owner)) +
				head(
					"POST /api/pull HTTP/1.1",
					"Host: gate",
					shows(testKeys.owner),
					"Transfer-Encoding: chunked",
				) +
				chunk("x".repeat(2 ** 20 - 10)),
		);
		await upstream.answered;
		// The gate has the reply's end once it has served a request that came after it.
		await attack(gate, head("GET / HTTP/1.1", "Host: gate"));
		client.write(chunk("y".repeat(200)) + chunk("y".repeat(200)));
		// The bytes have been read by the time that a few others have been answered.
		let outcome = "";
		for (let n = 0; n < 20 && !outcome.startsWith("died"); n++)
			outcome = await Promise.race([
				attack(gate, head("GET / HTTP/1.1", "Host: gate")).then(
					({ status }) => `answers ${status}`,
				),
				gate.exited.then((code) => `died with exit code ${code}`),
			]);
		t.equal(outcome, "answers 401");
	},
);

t.test(
	"a body that grows past its limit in mid-reply ends the request once",
	async (t) => {
		const warnings: string[] = [];
		const onWarning = ({ message }: Error) => warnings.push(message);
		process.on("warning", onWarning);
		t.teardown(() => process.off("warning", onWarning));
		const sockets = new Set<Socket>();
		const server = createServer((socket) => {
			sockets.add(socket);
			socket.on("error", () => {});
			socket.once("data", () =>
				socket.write(
					`${head("HTTP/1.1 200 OK", "Content-Type: application/x-ndjson", "Transfer-Encoding: chunked")}${chunk('{"status":"pulling"}\n')}`,
				),
			);
		});
		await new Promise<void>((done) => server.listen(0, "127.0.0.1", done));
		t.teardown(() => {
			server.close();
			for (const socket of sockets) socket.destroy();
		});
		const address = server.address();
		if (address === null || typeof address === "string")
			throw new Error("no port");
		const gate = await startGate(t, {
			upstreamUrl: `http://127.0.0.1:${address.port}`,
		});
		const client = await openRaw(gate.port);
		client.write(
			head(
				"POST /api/pull HTTP/1.1",
				"Host: gate",
				shows(testKeys.owner),
				"Transfer-Encoding: chunked",
			) + chunk("x"),
		);
		await client.until((text) => text.includes("pulling"));
		client.socket.pause();
		for (let n = 0; n < 200; n++) client.write(chunk("y".repeat(16_384)));
		await gate.logged(({ reason }) => reason === "body_too_large");
		client.socket.resume();
		await client.closed;
		t.equal(
			gate.log.filter(({ reason }) => reason === "body_too_large").length,
			1,
		);
		t.equal(
			client.text().split("the body may have at most").length - 1,
			1,
			"the error is told once",
		);
		t.strictSame(warnings, [], "no listeners pile up");
	},
);

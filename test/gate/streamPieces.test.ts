import { once } from "node:events";
import { connect, createServer, type Socket } from "node:net";
import t from "tap";
import { startGate, testKeys } from "../support/gate.ts";
import { chunk, head, openRaw, post, shows } from "../support/raw.ts";

/** Pieces of a reply come and go one by one, and some past Node's response: none may pass another. */

const streamHead = head(
	"HTTP/1.1 200 OK",
	"Content-Type: application/x-ndjson",
	"Transfer-Encoding: chunked",
);
const lastLine = '{"done":true}\n';

/** Lines of all sizes, each with its number: most small, some larger than what is written as a string. */
const lines = Array.from({ length: 400 }, (_, n) => {
	const size = n % 50 === 49 ? 300_000 : n % 7 === 3 ? 5_000 : n % 90;
	return `{"n":${n},"text":"${"x".repeat(size)}"}\n`;
});
const whole = lines.join("") + lastLine;

/** An Ollama that hands out the socket of each request once it has read it. */
async function openUpstream(
	t: { teardown(action: () => unknown): unknown },
	answer: (socket: Socket) => unknown,
): Promise<string> {
	const sockets = new Set<Socket>();
	const server = createServer((socket) => {
		sockets.add(socket);
		socket.setNoDelay(true);
		socket.on("error", () => {});
		let text = "";
		socket.on("data", (more) => {
			text += more;
			if (!text.endsWith("}")) return;
			text = "";
			answer(socket);
		});
	}).listen(0, "127.0.0.1");
	t.teardown(() => {
		for (const socket of sockets) socket.destroy();
		server.close();
	});
	await once(server, "listening");
	return `http://127.0.0.1:${(server.address() as { port: number }).port}`;
}

/** Writes all lines, each in a turn of its own. */
async function writeLines(socket: Socket): Promise<void> {
	socket.write(streamHead);
	for (const line of lines) {
		if (!socket.write(chunk(line))) await once(socket, "drain");
		await new Promise(setImmediate);
	}
	socket.write(`${chunk(lastLine)}0\r\n\r\n`);
}

const ask = (...more: string[]) =>
	post(
		"/api/generate",
		'{"model":"qwen3:8b","prompt":"a"}',
		shows(testKeys.user),
		...more,
	);

const withoutQueue = { queue: { mode: "off" } };

t.test(
	"pieces of any size reach a client that reads by fits and starts in their order",
	async (t) => {
		const upstreamUrl = await openUpstream(t, writeLines);
		const gate = await startGate(t, { upstreamUrl, config: withoutQueue });
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		client.write(ask());
		for (const [n, line] of lines.entries()) {
			if (line.length < 300_000) continue;
			await client.until((text) => text.includes(`{"n":${n},`));
			client.socket.pause();
			for (let turns = 0; turns < 100; turns += 1)
				await new Promise(setImmediate);
			client.socket.resume();
		}
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.body === whole, true, "byte for byte");
		// The connection is in step: it takes another request.
		client.write(ask());
		const [, next] = await client.untilReplies(2);
		t.equal(next?.body === whole, true);
	},
);

t.test(
	"small pieces that fill the way to a client which reads nothing go on once it reads",
	async (t) => {
		const line = `${"y".repeat(2_000)}\n`;
		const count = 20_000;
		let sent = 0;
		const upstreamUrl = await openUpstream(t, async (socket) => {
			socket.write(streamHead);
			for (; sent < count; sent += 1) {
				if (!socket.write(chunk(line))) await once(socket, "drain");
				await new Promise(setImmediate);
			}
			socket.write(`${chunk(lastLine)}0\r\n\r\n`);
		});
		const gate = await startGate(t, { upstreamUrl, config: withoutQueue });
		const client = connect(gate.port, "127.0.0.1");
		t.teardown(() => client.destroy());
		client.write(ask());
		await once(client, "readable");
		let before = -1;
		// Until it stands still for half a second.
		while (before !== sent) {
			before = sent;
			await new Promise((resolve) => setTimeout(resolve, 500));
		}
		t.ok(sent < count, `Ollama was held back after ${sent} lines`);
		let [size, end] = [0, ""];
		for await (const piece of client) {
			size += piece.length;
			end = (end + piece.toString("latin1")).slice(-40);
			if (end.endsWith("\r\n0\r\n\r\n")) break;
		}
		t.ok(end.includes(lastLine));
		t.ok(size > count * line.length);
	},
);

t.test(
	"a stream behind another one on its connection comes whole and in its turn",
	async (t) => {
		const held: Socket[] = [];
		const came = Promise.withResolvers<void>();
		const upstreamUrl = await openUpstream(t, (socket) => {
			held.push(socket);
			if (held.length === 2) came.resolve();
		});
		const gate = await startGate(t, { upstreamUrl, config: withoutQueue });
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		client.write(ask() + ask());
		await came.promise;
		const [first, second] = held;
		if (first === undefined || second === undefined)
			throw new Error("two requests have come");
		const line = (of: string, n: number) => chunk(`{"${of}":${n}}\n`);
		const end = `${chunk(lastLine)}0\r\n\r\n`;
		second.write(streamHead + line("second", 1));
		first.write(streamHead + line("first", 1));
		await client.until((text) => text.includes('{"first":1}'));
		second.write(line("second", 2));
		first.write(line("first", 2));
		await client.until((text) => text.includes('{"first":2}'));
		t.notOk(client.text().includes("second"));
		first.write(end);
		await client.until((text) => text.includes('{"second":2}'));
		second.write(line("second", 3));
		await client.until((text) => text.includes('{"second":3}'));
		second.write(end);
		const replies = await client.untilReplies(2);
		t.strictSame(
			replies.map(({ body }) => body),
			["first", "second"].map(
				(of) =>
					[1, 2, ...(of === "second" ? [3] : [])]
						.map((n) => `{"${of}":${n}}\n`)
						.join("") + lastLine,
			),
		);
	},
);

t.test("HTTP/1.0 gets the pieces alone, and the close", async (t) => {
	const upstreamUrl = await openUpstream(t, writeLines);
	const gate = await startGate(t, { upstreamUrl, config: withoutQueue });
	const client = await openRaw(gate.port);
	t.teardown(() => client.destroy());
	client.write(ask().replace("HTTP/1.1", "HTTP/1.0"));
	await client.closed;
	const text = client.text();
	const body = text.slice(text.indexOf("\r\n\r\n") + 4);
	t.equal(body === whole, true, "byte for byte");
});

t.test(
	"what comes with an end that is too early is passed on, then the error, and nothing ends it",
	async (t) => {
		const upstreamUrl = await openUpstream(t, (socket) =>
			socket.write(`${streamHead}${chunk('{"n":1}\n')}0\r\n\r\n`),
		);
		const gate = await startGate(t, { upstreamUrl, config: withoutQueue });
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		client.write(ask());
		await client.closed;
		const text = client.text();
		t.match(text, /\{"n":1\}\n\r\n[0-9a-f]+\r\n\{"error":"[^"]+"\}\n\r\n$/);
		t.notOk(text.endsWith("0\r\n\r\n"));
	},
);

// Reads token streams over keep-alive connections and notes how long each token
// has been on its way. The first streams of each connection only warm it up.
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

process.on("disconnect", () => process.exit());

export interface TokenTask {
	readonly port: number;
	readonly key: string;
	readonly streams: number;
	readonly tokens: number;
	readonly intervalMs: number;
	readonly warmUpMs: number;
	readonly measureMs: number;
}

/** In nanoseconds. */
export interface TokenTimes {
	/** From the request to the first token. */
	readonly firstToken: readonly number[];
	/** From the upstream's write of each later token to its arrival. */
	readonly chunk: readonly number[];
	/** Tokens in all, those of the warm-up among them. */
	readonly received: number;
}

const task = JSON.parse(process.argv[2] ?? "") as TokenTask;
const { port, key, streams, tokens, intervalMs } = task;
const body = JSON.stringify({
	model: "bench",
	prompt: "tell me",
	bench: { tokens, intervalMs },
});
const request = [
	"POST /api/generate HTTP/1.1",
	`Host: 127.0.0.1:${port}`,
	`Authorization: Bearer ${key}`,
	"Content-Type: application/json",
	`Content-Length: ${body.length}`,
	"",
	body,
].join("\r\n");

const now = () => Number(process.hrtime.bigint());
const startNs = now();
const measureFromNs = startNs + task.warmUpMs * 1e6;
const endNs = measureFromNs + task.measureMs * 1e6;
const firstToken: number[] = [];
const chunk: number[] = [];
let receivedInAll = 0;

/** One stream after the other on one connection until the time is over. */
function readStreams(): Promise<void> {
	const { promise, resolve, reject } = Promise.withResolvers<void>();
	const socket = connect({ port, host: "127.0.0.1", noDelay: true });
	let text = "";
	let requestedAtNs = 0;
	let received = 0;
	const ask = () => {
		received = 0;
		requestedAtNs = now();
		socket.write(request, "latin1");
	};
	socket.on("connect", ask);
	socket.on("data", (bytes: Buffer) => {
		const atNs = now();
		text += bytes.toString("latin1");
		if (received === 0 && text.length > 12 && !text.startsWith("HTTP/1.1 200"))
			return void socket.destroy(new Error(text.split("\r\n")[0]));
		let read = 0;
		for (const match of text.matchAll(/"t":"(\d{20})"/g)) {
			read = match.index + match[0].length;
			received += 1;
			receivedInAll += 1;
			if (requestedAtNs < measureFromNs) continue;
			if (received === 1) firstToken.push(atNs - requestedAtNs);
			else chunk.push(atNs - Number(match[1]));
		}
		text = text.slice(read);
		if (!text.endsWith("\r\n0\r\n\r\n")) return;
		text = "";
		if (received !== tokens)
			return void socket.destroy(new Error(`${received} of ${tokens} tokens`));
		// Each connection has one stream at least that was asked for in time.
		if (requestedAtNs < measureFromNs || now() < endNs) ask();
		else socket.end();
	});
	socket.on("error", reject);
	socket.on("close", resolve);
	return promise;
}

const running: Promise<void>[] = [];
// Spread out, so that neither starts nor tokens of all streams fall together.
const spreadMs = Math.min(task.warmUpMs / 2, tokens * intervalMs);
for (let i = 0; i < streams; i++) {
	const waitMs = (i * spreadMs) / streams - (now() - startNs) / 1e6;
	if (waitMs > 0) await delay(waitMs);
	running.push(readStreams());
}
await Promise.all(running);
process.send?.({
	firstToken,
	chunk,
	received: receivedInAll,
} satisfies TokenTimes);

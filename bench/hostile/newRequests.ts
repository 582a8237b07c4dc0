/**
 * Somebody with a good key who comes anew each time, in a process of its own:
 * `node newRequests.ts PORT KEY ADDRESS MILLISECONDS`. A key with rules, so that
 * its requests go all the way. Prints one JSON object: what each took in
 * milliseconds, and how many had no 200.
 */
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

const [port, key, from, lastsMs] = process.argv.slice(2);
const intervalMs = 25;
const giveUpMs = 20_000;

const body = JSON.stringify({
	model: "bench",
	prompt: "tell me",
	bench: { tokens: 1, intervalUs: 0, size: 0, report: 0 },
});
const request = `POST /api/generate HTTP/1.1\r\nHost: gate\r\nAuthorization: Bearer ${key}\r\nConnection: close\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

/** Milliseconds until the reply's first bytes. */
function ask(): Promise<{ tookMs: number; ok: boolean }> {
	return new Promise((resolve) => {
		const startedAtMs = performance.now();
		const socket = connect({
			port: Number(port),
			host: "127.0.0.1",
			localAddress: from ?? "127.0.0.1",
		});
		const end = (ok: boolean) => {
			socket.destroy();
			resolve({ tookMs: performance.now() - startedAtMs, ok });
		};
		socket.setTimeout(giveUpMs, () => end(false));
		socket.on("connect", () => socket.write(request));
		socket.once("data", (data) =>
			end(data.toString("latin1").startsWith("HTTP/1.1 200")),
		);
		socket.on("error", () => end(false));
		socket.on("end", () => end(false));
	});
}

const results: Promise<{ tookMs: number; ok: boolean }>[] = [];
const endsAtMs = performance.now() + Number(lastsMs);
while (performance.now() < endsAtMs) {
	results.push(ask());
	await delay(intervalMs);
}
const all = await Promise.all(results);
process.stdout.write(
	`${JSON.stringify({
		tookMs: all.map(({ tookMs }) => tookMs),
		failed: all.filter(({ ok }) => !ok).length,
	})}\n`,
);

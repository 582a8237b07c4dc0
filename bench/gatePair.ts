import type { ChildProcess } from "node:child_process";
import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { createInterface } from "node:readline";
import { parseArgs } from "node:util";
import { bearer, startGate, testKeys } from "../test/support/gate.ts";
import { cpuSeconds, pinning, start } from "./processes.ts";

/** Two gates that differ in one thing, asked by turns: what a thing adds to a request. */

/** So many requests are one slice. */
export const sliceRequests = 300;
const warmUpRequests = 2_000;

/** A chat of one token. */
export const shortChat = JSON.stringify({
	model: "qwen3:8b",
	messages: [{ role: "user", content: "Hello!" }],
	options: { num_predict: 1 },
});

type GateOptions = Parameters<typeof startGate>[1];

/** For how many seconds in how many processes they are asked: `--seconds 30 --rounds 3`. */
export function readPairArgs() {
	const { values, positionals } = parseArgs({
		allowPositionals: true,
		options: {
			seconds: { type: "string", default: "30" },
			rounds: { type: "string", default: "3" },
		},
	});
	return {
		seconds: Number(values.seconds),
		rounds: Number(values.rounds),
		positionals,
	};
}

/** Runs both gates in this process, so that they run the same compiled code, until SIGTERM. */
export async function runGatePair(
	bench: Parameters<typeof startGate>[0],
	pair: readonly [GateOptions, GateOptions],
): Promise<void> {
	const urls: string[] = [];
	for (const options of pair) urls.push((await startGate(bench, options)).url);
	process.stdout.write(`${urls.join(" ")}\n`);
	await once(process, "SIGTERM");
	process.exit(0);
}

/** Both gates, as they are asked. */
export interface GatePair {
	/** To be stopped by the caller. */
	readonly child: ChildProcess;
	readonly urls: readonly [string, string];
	warmUp(body: string): Promise<void>;
	/** Asks so many times one after the other. */
	slice(url: string, body: string): Promise<Slice>;
	/** Ends the connections to both. */
	leave(): void;
}

export interface Slice {
	/** Of the gates, in µs a request. */
	readonly cpu: number;
	/** Milliseconds. */
	readonly firstBytes: readonly number[];
}

/** Starts a bench's own file with the argument `gates`, which is to call `runGatePair`. */
export async function startGatePair(
	file: string,
	args: readonly string[],
): Promise<GatePair> {
	const child = start(
		[...pinning.measured, process.execPath, file, "gates", ...args],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	if (child.stdout === null) throw new Error("it has no output");
	const [line] = await once(createInterface({ input: child.stdout }), "line");
	const [first = "", second = ""] = String(line).split(" ");
	const agent = new Agent({ keepAlive: true, maxSockets: 1 });
	const pids = [child.pid ?? 0];
	/** @returns milliseconds until the reply began */
	const ask = async (url: string, body: string) => {
		const sentMs = performance.now();
		const sent = request(new URL("/api/chat", url), {
			agent,
			method: "POST",
			headers: {
				...bearer(testKeys.worker),
				"content-length": Buffer.byteLength(body),
			},
		});
		sent.end(body);
		const [reply] = (await once(sent, "response")) as [IncomingMessage];
		const firstByteMs = performance.now() - sentMs;
		if (reply.statusCode !== 200) throw new Error(`${reply.statusCode}`);
		for await (const _ of reply);
		return firstByteMs;
	};
	return {
		child,
		urls: [first, second],
		async warmUp(body) {
			for (let n = 0; n < warmUpRequests; n += 1)
				await ask(n % 2 === 0 ? first : second, body);
		},
		async slice(url, body) {
			const firstBytes: number[] = [];
			const before = cpuSeconds(pids);
			for (let n = 0; n < sliceRequests; n += 1)
				firstBytes.push(await ask(url, body));
			return {
				cpu: (1e6 * (cpuSeconds(pids) - before)) / sliceRequests,
				firstBytes,
			};
		},
		leave: () => agent.destroy(),
	};
}

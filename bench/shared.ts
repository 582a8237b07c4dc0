import { type ChildProcess, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { Agent, type IncomingMessage, request } from "node:http";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { parseArgs } from "node:util";
import { startStandIn } from "../src/ollama/standIn.ts";
import { bearer, startGate, testKeys } from "../test/support/gate.ts";
import { cpuSeconds, pinning, start, stop, stopAll } from "./processes.ts";
import { fixed, median, quantile, ratio, renderSection } from "./report.ts";

/**
 * What it adds to a request that limits are shared through Valkey: CPU of the gate
 * and of Valkey, and time to the first byte. Two gates in one process run the same
 * compiled code, one with `state` and one without, by turns.
 *
 *     node bench/shared.ts [--seconds 30] [--rounds 3]
 */
const { values: options, positionals } = parseArgs({
	allowPositionals: true,
	options: {
		seconds: { type: "string", default: "30" },
		rounds: { type: "string", default: "3" },
	},
});
const [seconds, rounds] = [options.seconds, options.rounds].map(Number) as [
	number,
	number,
];
const sliceRequests = 300;
const closing: (() => unknown)[] = [];
const bench = { teardown: (action: () => unknown) => closing.unshift(action) };
const folder = mkdtempSync(path.join(tmpdir(), "llamagate-shared-bench-"));

const program = ["valkey-server", "redis-server"].find(
	(name) => spawnSync("which", [name]).status === 0,
);

async function runGates(upstreamUrl: string, url: string): Promise<void> {
	const urls: string[] = [];
	for (const config of [{}, { state: { url, gates: 1 } }])
		urls.push((await startGate(bench, { upstreamUrl, config })).url);
	process.stdout.write(`${urls.join(" ")}\n`);
	await once(process, "SIGTERM");
	process.exit(0);
}

async function firstLine(child: ChildProcess): Promise<string> {
	if (child.stdout === null) throw new Error("it has no output");
	const [line] = await once(createInterface({ input: child.stdout }), "line");
	return line as string;
}

/** Starts a Valkey on a socket, and waits until it listens. */
async function startValkey(round: number) {
	const socketPath = path.join(folder, `valkey${round}.sock`);
	const child = start(
		[
			...[program ?? "", "--port", "0", "--unixsocket", socketPath],
			...["--save", "", "--appendonly", "no", "--dir", folder],
		],
		{ stdio: "ignore" },
	);
	for (;;) {
		const socket = connect(socketPath);
		const isThere = await once(socket, "connect").then(
			() => true,
			() => false,
		);
		socket.destroy();
		if (isThere) return { child, socketPath };
		await delay(10);
	}
}

interface Slice {
	/** Microseconds a request. */
	readonly cpu: number;
	readonly valkeyCpu: number;
	/** Milliseconds. */
	readonly firstBytes: readonly number[];
}

const body = JSON.stringify({
	model: "qwen3:8b",
	messages: [{ role: "user", content: "Hello!" }],
	options: { num_predict: 1 },
});

/** One request. @returns milliseconds until its reply began */
async function ask(url: string, agent: Agent): Promise<number> {
	const sentMs = performance.now();
	const sent = request(new URL("/api/chat", url), {
		agent,
		method: "POST",
		headers: { ...bearer(testKeys.worker), "content-length": body.length },
	});
	sent.end(body);
	const [reply] = (await once(sent, "response")) as [IncomingMessage];
	const firstByteMs = performance.now() - sentMs;
	if (reply.statusCode !== 200) throw new Error(`${reply.statusCode}`);
	for await (const _ of reply);
	return firstByteMs;
}

async function measure(): Promise<void> {
	const all: Record<"off" | "on", Slice[]> = { off: [], on: [] };
	for (let round = 0; round < rounds; round += 1) {
		const valkey = await startValkey(round);
		const standIn = await startStandIn({ remember: false });
		const gates = start(
			[
				...pinning.measured,
				...[process.execPath, import.meta.filename, "gates"],
				...[standIn.url, `unix:${valkey.socketPath}`],
			],
			{ stdio: ["ignore", "pipe", "inherit"] },
		);
		const [off = "", on = ""] = (await firstLine(gates)).split(" ");
		const agent = new Agent({ keepAlive: true, maxSockets: 1 });
		const slice = async (url: string): Promise<Slice> => {
			const firstBytes: number[] = [];
			const pids = [gates.pid ?? 0];
			const valkeyPids = [valkey.child.pid ?? 0];
			const [before, valkeyBefore] = [cpuSeconds(pids), cpuSeconds(valkeyPids)];
			for (let n = 0; n < sliceRequests; n += 1)
				firstBytes.push(await ask(url, agent));
			const each = (spent: number) => (1e6 * spent) / sliceRequests;
			return {
				cpu: each(cpuSeconds(pids) - before),
				valkeyCpu: each(cpuSeconds(valkeyPids) - valkeyBefore),
				firstBytes,
			};
		};
		for (let n = 0; n < 2_000; n += 1) await ask(n % 2 === 0 ? off : on, agent);
		const endMs = performance.now() + (1000 * seconds) / rounds;
		while (performance.now() < endMs) {
			all.off.push(await slice(off));
			all.on.push(await slice(on));
		}
		agent.destroy();
		await stop(gates);
		await standIn.close();
		await stop(valkey.child);
	}
	show(all);
}

function show(all: Record<"off" | "on", Slice[]>): void {
	const row = (
		name: string,
		of: (slice: Slice) => number,
		decimals: number,
	): string[] => {
		const [off, on] = [all.off.map(of), all.on.map(of)];
		return [
			name,
			fixed(median(off), decimals),
			fixed(median(on), decimals),
			ratio(median(on), median(off)),
			fixed(median(on.map((value, at) => value - (off[at] ?? 0))), decimals),
		];
	};
	const title = "What shared limits add to a request";
	process.stdout.write(
		`${renderSection({
			...{ name: title, title, figures: {}, data: {} },
			notes: [
				`/api/chat of one token, one after the other: ${all.off.length} pairs of slices of ${sliceRequests} requests, by turns, two gates in one process, ${rounds} processes; ${program} on a Unix socket of the same machine.`,
			],
			head: ["", "without", "with", "ratio", "added, median of the pairs"],
			rows: [
				row("CPU of the gate, µs", ({ cpu }) => cpu, 1),
				row("CPU of Valkey, µs", ({ valkeyCpu }) => valkeyCpu, 1),
				row("first byte p50, ms", ({ firstBytes }) => median(firstBytes), 3),
				row(
					"first byte p90, ms",
					({ firstBytes }) => quantile(firstBytes, 0.9),
					3,
				),
			],
		})}\n`,
	);
}

if (positionals[0] === "gates")
	await runGates(positionals[1] ?? "", positionals[2] ?? "");
else
	try {
		if (program === undefined)
			throw new Error("apt-get install redis-server, or valkey-server");
		await measure();
	} finally {
		for (const close of closing) await close();
		await stopAll();
		rmSync(folder, { recursive: true, force: true });
	}

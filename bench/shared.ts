import { spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { startStandIn } from "../src/ollama/standIn.ts";
import {
	readPairArgs,
	runGatePair,
	type Slice,
	shortChat,
	sliceRequests,
	startGatePair,
} from "./gatePair.ts";
import { cpuSeconds, start, stop, stopAll } from "./processes.ts";
import { fixed, median, quantile, ratio, renderSection } from "./report.ts";

/**
 * What it adds to a request that limits are shared through Valkey: CPU of the gate
 * and of Valkey, and time to the first byte. Two gates in one process run the same
 * compiled code, one with `state` and one without, by turns.
 *
 *     node bench/shared.ts [--seconds 30] [--rounds 3]
 */
const { seconds, rounds, positionals } = readPairArgs();
const closing: (() => unknown)[] = [];
const bench = { teardown: (action: () => unknown) => closing.unshift(action) };
const folder = mkdtempSync(path.join(tmpdir(), "llamagate-shared-bench-"));

const program = ["valkey-server", "redis-server"].find(
	(name) => spawnSync("which", [name]).status === 0,
);

function runGates(upstreamUrl: string, url: string): Promise<void> {
	return runGatePair(bench, [
		{ upstreamUrl, config: {} },
		{ upstreamUrl, config: { state: { url, gates: 1 } } },
	]);
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

interface SharedSlice extends Slice {
	/** Microseconds a request. */
	readonly valkeyCpu: number;
}

async function measure(): Promise<void> {
	const all: Record<"off" | "on", SharedSlice[]> = { off: [], on: [] };
	for (let round = 0; round < rounds; round += 1) {
		const valkey = await startValkey(round);
		const standIn = await startStandIn({ remember: false });
		const gates = await startGatePair(import.meta.filename, [
			...[standIn.url, `unix:${valkey.socketPath}`],
		]);
		const [off, on] = gates.urls;
		const slice = async (url: string): Promise<SharedSlice> => {
			const valkeyPids = [valkey.child.pid ?? 0];
			const before = cpuSeconds(valkeyPids);
			const measured = await gates.slice(url, shortChat);
			const spent = cpuSeconds(valkeyPids) - before;
			return { ...measured, valkeyCpu: (1e6 * spent) / sliceRequests };
		};
		await gates.warmUp(shortChat);
		const endMs = performance.now() + (1000 * seconds) / rounds;
		while (performance.now() < endMs) {
			all.off.push(await slice(off));
			all.on.push(await slice(on));
		}
		gates.leave();
		await stop(gates.child);
		await standIn.close();
		await stop(valkey.child);
	}
	show(all);
}

function show(all: Record<"off" | "on", SharedSlice[]>): void {
	const row = (
		name: string,
		of: (slice: SharedSlice) => number,
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

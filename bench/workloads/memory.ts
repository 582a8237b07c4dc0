import { setTimeout as delay } from "node:timers/promises";
import { runLoad, type StreamTimes, startLoad } from "../native.ts";
import { residentBytes, stop } from "../processes.ts";
import { fixed, mebibytes, median, type Section } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	freshStarts,
	measureEach,
	toData,
} from "../rounds.ts";
import { key, type Stage, type Target, withTargets } from "../targets.ts";

const streamCount = 500;

interface Opening {
	readonly baseBytes: number;
	readonly openBytes: number;
}

/** What open streams that say little take in memory. */
export async function memory(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 3;
	// Each time from fresh processes: freed memory stays resident.
	const results = await freshStarts(starts, (round) =>
		withTargets(stage, (all) =>
			measureEach(
				stage,
				all.filter(({ pids }) => pids.length > 0),
				round,
				`memory: ${streamCount} streams`,
				(target) => openStreams(stage, target, streamCount),
			),
		),
	);
	const figures = figuresOf(results, (samples) => {
		return {
			base: median(samples.map(({ baseBytes }) => baseBytes)),
			open: median(samples.map(({ openBytes }) => openBytes)),
			perStream: median(
				samples.map(
					({ baseBytes, openBytes }) =>
						(openBytes - baseBytes) / 1024 / streamCount,
				),
			),
		};
	});
	return [
		{
			name: "memory",
			title: `Memory: ${streamCount} open streams`,
			notes: [
				`resident memory after some requests, and with ${streamCount} streams of 2 tokens/s open; median of ${starts} fresh start(s); garbage that is not collected yet is among it`,
				...failureNotes(results),
			],
			head: ["", "before", `with ${streamCount}`, "KiB a stream"],
			rows: results.map((result) => {
				const { name } = result.target;
				if ("failure" in result) return [name, result.failure];
				const { base = 0, open = 0, perStream = 0 } = figures[name] ?? {};
				return [name, mebibytes(base), mebibytes(open), fixed(perStream)];
			}),
			figures,
			data: toData(results),
		},
	];
}

/** Resident memory without and with so many streams. */
export async function openStreams(
	{ native }: Stage,
	{ port, pids }: Target,
	count: number,
): Promise<Opening> {
	const common = { mode: "streams", port, key, warmUpMs: 0 };
	// Once before, so that code that is made for any stream at all does not count.
	await runLoad<StreamTimes>(native, {
		...common,
		streams: 20,
		tokens: 20,
		intervalUs: 1_000,
		measureMs: 300,
	});
	await delay(300);
	const baseBytes = residentBytes(pids, "VmRSS");
	const load = startLoad(native, {
		...common,
		streams: count,
		tokens: 1_000,
		intervalUs: 500_000,
		warmUpMs: 2_000,
		measureMs: 60_000,
	});
	try {
		await Promise.race([
			delay(3_000),
			load.lines.then(() => {
				throw new Error("the streams ended early");
			}),
		]);
		return { baseBytes, openBytes: residentBytes(pids, "VmRSS") };
	} finally {
		await stop(load.child);
		await delay(200);
	}
}

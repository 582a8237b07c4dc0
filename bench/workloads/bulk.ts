import { runLoad, type StreamTimes } from "../native.ts";
import { cpuSeconds, resetPeak, residentBytes } from "../processes.ts";
import { fixed, mebibytes, median, type Section, whole } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	freshStarts,
	measureEach,
	toData,
} from "../rounds.ts";
import { key, type Stage, type Target, withTargets } from "../targets.ts";

interface Bulk {
	readonly megabytesPerSecond: number;
	readonly tokensPerSecond: number;
	readonly cpuPerGigabyte: number;
	readonly grownBytes: number;
}

interface Moved {
	readonly bytes: number;
	readonly bytesPerSecond: number;
	readonly tokensPerSecond: number;
}

interface Kind {
	readonly name: string;
	readonly title: string;
	move(stage: Stage, target: Target): Promise<Moved>;
}

/** Much at once, and what of it stands in memory meanwhile. */
export async function bulk(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 2;
	const gigabytes = stage.quick ? 0.25 : 2;
	const kinds: Kind[] = [
		{
			name: "fast tokens",
			title:
				"Replies as fast as they come: 8 streams of 128-byte lines, one write each",
			move: (stage, target) =>
				down(stage, target, {
					streams: 8,
					tokens: 20_000,
					size: 128,
					measureMs: stage.quick ? 500 : 2_000,
				}),
		},
		{
			name: "download",
			title: `${gigabytes} GB down in lines of 64 KB`,
			move: (stage, target) => download(stage, target, gigabytes * 1e9),
		},
		{
			name: "upload",
			title: `${gigabytes} GB up`,
			move: (stage, target) => upload(stage, target, gigabytes * 1e9),
		},
	];
	const sections: Section[] = [];
	for (const kind of kinds) {
		const results = await freshStarts(starts, (round) =>
			withTargets(stage, (targets) =>
				measureEach(stage, targets, round, kind.name, (target) =>
					measureBulk(stage, target, () => kind.move(stage, target)),
				),
			),
		);
		const figures = figuresOf(results, (samples) => {
			return {
				megabytesPerSecond: median(
					samples.map((one) => one.megabytesPerSecond),
				),
				tokensPerSecond: median(samples.map((one) => one.tokensPerSecond)),
				cpu: median(samples.map((one) => one.cpuPerGigabyte)),
				grown: Math.max(...samples.map((one) => one.grownBytes)),
			};
		});
		sections.push({
			name: kind.name,
			title: kind.title,
			notes: [
				`median of ${starts} fresh start(s); memory: the most that VmHWM grew in any of them`,
				...failureNotes(results),
			],
			head: ["", "MB/s", "lines/s", "CPU s a GB", "memory grown by"],
			rows: results.map((result) => {
				const { name, pids } = result.target;
				if ("failure" in result) return [name, result.failure];
				const figure = figures[name] ?? {};
				return [
					name,
					whole(figure.megabytesPerSecond ?? 0),
					kind.name === "upload" ? "" : whole(figure.tokensPerSecond ?? 0),
					...(pids.length === 0
						? []
						: [fixed(figure.cpu ?? 0, 2), mebibytes(figure.grown ?? 0)]),
				];
			}),
			figures,
			data: toData(results),
		});
	}
	return sections;
}

/** Moves bytes through a target that has been used before, and looks at what that took. */
export async function measureBulk(
	stage: Stage,
	target: Target,
	move: () => Promise<Moved>,
): Promise<Bulk> {
	const { pids } = target;
	await down(stage, target, {
		streams: 8,
		tokens: 2_000,
		size: 128,
		measureMs: 300,
	});
	resetPeak(pids);
	const baseBytes = residentBytes(pids, "VmRSS");
	const before = cpuSeconds(pids);
	const { bytes, bytesPerSecond, tokensPerSecond } = await move();
	return {
		megabytesPerSecond: bytesPerSecond / 1e6,
		tokensPerSecond,
		cpuPerGigabyte: (1e9 * (cpuSeconds(pids) - before)) / bytes,
		grownBytes: residentBytes(pids, "VmHWM") - baseBytes,
	};
}

/** One stream of lines of 64 KB. */
export function download(
	stage: Stage,
	target: Target,
	bytes: number,
): Promise<Moved> {
	const size = 65_536;
	const tokens = Math.max(1, Math.round(bytes / size));
	return down(stage, target, { streams: 1, tokens, size, measureMs: 1 });
}

export async function upload(
	{ native }: Stage,
	{ port }: Target,
	bytes: number,
): Promise<Moved> {
	const { ns } = await runLoad<{ ns: number }>(native, {
		mode: "upload",
		port,
		key,
		path: `/api/blobs/sha256:${"0".repeat(64)}`,
		bytes,
	});
	return { bytes, bytesPerSecond: (1e9 * bytes) / ns, tokensPerSecond: 0 };
}

async function down(
	{ native }: Stage,
	{ port }: Target,
	options: { size: number } & Record<string, number>,
): Promise<Moved> {
	const times = await runLoad<StreamTimes>(native, {
		mode: "streams",
		port,
		key,
		intervalUs: 0,
		warmUpMs: 0,
		...options,
	});
	if (times.lost > 0) throw new Error("the stream was cut");
	return { ...times, bytes: times.received * options.size };
}

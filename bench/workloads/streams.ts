import { runLoad, type StreamTimes } from "../native.ts";
import { cpuSeconds } from "../processes.ts";
import { fixed, median, type Section, whole } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	measureEach,
	mergeRounds,
	type Samples,
	toData,
} from "../rounds.ts";
import {
	key,
	mostParallel,
	type Stage,
	type Target,
	withTargets,
} from "../targets.ts";

interface Level {
	readonly streams: number;
	readonly tokens: number;
	readonly intervalUs: number;
	readonly cold?: boolean;
	/** Longer than usual, so that not all begin and end together. */
	readonly warmUpMs?: number;
}

/** Short streams where there are few, so that there are enough first tokens. */
const levels: readonly Level[] = [
	{ streams: 1, tokens: 5, intervalUs: 20_000 },
	{ streams: 16, tokens: 25, intervalUs: 20_000 },
	{ streams: 64, tokens: 25, intervalUs: 20_000 },
	{ streams: 64, tokens: 25, intervalUs: 20_000, cold: true },
	{ streams: 500, tokens: 60, intervalUs: 50_000, warmUpMs: 4_000 },
	{ streams: 2_000, tokens: 60, intervalUs: 50_000, warmUpMs: 4_000 },
];

interface Sample {
	readonly times: StreamTimes;
	readonly cpuMicroseconds: number;
	readonly coreShare: number;
}

interface Duration {
	readonly warmUpMs: number;
	readonly measureMs: number;
}

const nameOf = ({ streams, cold }: Level) =>
	`streams, ${streams}${cold === true ? " cold" : ""}`;

/** How much later tokens arrive through a gate than without one. */
export async function streams(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 3;
	const measured = stage.quick
		? levels.filter(({ streams }) => streams <= 64)
		: levels;
	const times: Duration = stage.quick
		? { warmUpMs: 500, measureMs: 1_000 }
		: { warmUpMs: 1_000, measureMs: 2_000 };
	const warmUp: Level = { streams: 64, tokens: 10, intervalUs: 5_000 };
	const notes = new Set<string>();
	const found = new Map(
		measured.map((level) => [level, [] as Samples<Sample>[]]),
	);
	const runs = [false, true].map((withoutQueue) => ({
		withoutQueue,
		levels: measured.filter(
			({ streams }) => streams > mostParallel === withoutQueue,
		),
	}));
	for (let round = 0; round < starts; round++)
		for (const { withoutQueue, levels } of runs) {
			if (levels.length === 0) continue;
			await withTargets(
				stage,
				async (targets, missing) => {
					for (const note of missing) notes.add(note);
					const each = (level: Level, label: string) =>
						measureEach(stage, targets, round, label, (target) =>
							measure(stage, target, level, times),
						);
					await each(warmUp, "streams: warm-up");
					for (const level of levels)
						found.get(level)?.push(...(await each(level, nameOf(level))));
				},
				{ gate: { withoutQueue } },
			);
		}
	return [...found].map(([level, all]) => {
		const results = mergeRounds(all);
		return {
			name: nameOf(level),
			title: `${level.streams} stream(s) of ${1e6 / level.intervalUs} tokens/s over ${level.cold === true ? "new" : "warm"} connections`,
			notes: [
				`microseconds; median of ${starts} fresh start(s) of ${times.measureMs / 1000} s; starts and tokens of the streams are spread out`,
				...(level.streams > mostParallel
					? [
							"the gate's queue is off, which lets no more than that run at once",
						]
					: []),
				...notes,
				...failureNotes(results),
			],
			...timesTable(results),
		};
	});
}

async function measure(
	{ native }: Stage,
	{ port, pids }: Target,
	{ streams, tokens, intervalUs, cold, warmUpMs }: Level,
	times: Duration,
): Promise<Sample> {
	const before = cpuSeconds(pids);
	const startedAt = performance.now();
	const result = await runLoad<StreamTimes>(native, {
		mode: "streams",
		port,
		key,
		streams,
		tokens,
		intervalUs,
		cold: cold === true ? 1 : 0,
		...times,
		...(warmUpMs === undefined ? undefined : { warmUpMs }),
	});
	if (result.lost > 0) throw new Error(`${result.lost} streams were cut`);
	const cpu = cpuSeconds(pids) - before;
	return {
		times: result,
		cpuMicroseconds: (1e6 * cpu) / result.received,
		coreShare: (1000 * cpu) / (performance.now() - startedAt),
	};
}

const columns = [
	["first50", "firstToken", "p50"],
	["first99", "firstToken", "p99"],
	["chunk50", "chunk", "p50"],
	["chunk99", "chunk", "p99"],
] as const;

function timesTable(
	results: readonly Samples<Sample>[],
): Pick<Section, "head" | "rows" | "data" | "figures"> {
	const figures = figuresOf(results, (samples) => {
		const figure: Record<string, number> = {
			cpu: median(samples.map(({ cpuMicroseconds }) => cpuMicroseconds)),
			busy: median(samples.map(({ coreShare }) => coreShare)),
		};
		for (const [name, what, quantile] of columns)
			figure[name] =
				median(samples.map(({ times }) => times[what][quantile] ?? 0)) / 1000;
		return figure;
	});
	const { direct } = figures;
	for (const [name, figure] of Object.entries(figures))
		if (name !== "direct")
			for (const [column] of columns)
				figure[`${column}Added`] =
					(figure[column] ?? Number.NaN) - (direct?.[column] ?? Number.NaN);
	return {
		figures,
		head: [
			"",
			"first token p50",
			"added",
			"p99",
			"chunk p50",
			"added",
			"p99",
			"added",
			"CPU a token",
			"its core busy",
		],
		rows: results.map((result) => {
			const { name, pids } = result.target;
			if ("failure" in result) return [name, result.failure];
			const figure = figures[name] ?? {};
			const cell = (column: string) =>
				figure[column] === undefined ? "" : whole(figure[column]);
			return [
				name,
				cell("first50"),
				cell("first50Added"),
				cell("first99"),
				cell("chunk50"),
				cell("chunk50Added"),
				cell("chunk99"),
				cell("chunk99Added"),
				...(pids.length === 0
					? []
					: [fixed(figure.cpu ?? 0), `${whole(100 * (figure.busy ?? 0))} %`]),
			];
		}),
		data: toData(results),
	};
}

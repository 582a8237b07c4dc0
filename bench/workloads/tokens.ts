import type { TokenTask, TokenTimes } from "../helpers/tokenClient.ts";
import { cpuSeconds, runHelper } from "../processes.ts";
import { fixed, quantile, type Section, whole } from "../report.ts";
import {
	freshStarts,
	measureEach,
	type Samples,
	samplesOf,
} from "../rounds.ts";
import { key, type Stage, type Target, withTargets } from "../targets.ts";

const intervalMs = 20;

interface Level {
	readonly streams: number;
	readonly tokens: number;
}

/** Short streams where there are few, so that there are enough first tokens. */
const levels: readonly Level[] = [
	{ streams: 1, tokens: 4 },
	{ streams: 16, tokens: 25 },
	{ streams: 64, tokens: 50 },
];

interface Sample {
	readonly level: Level;
	readonly times: TokenTimes;
	/** Of the target's processes. */
	readonly cpuSeconds: number;
}

/** How much later tokens arrive through a gate than without one. */
export async function tokens(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 3;
	const measured = levels.filter(
		({ streams }) => !stage.quick || streams !== 16,
	);
	const times = stage.quick
		? { warmUpMs: 300, measureMs: 500 }
		: { warmUpMs: 500, measureMs: 1_600 };
	const measure = async (level: Level, { port, pids }: Target) => {
		const before = cpuSeconds(pids);
		const task: TokenTask = { port, key, intervalMs, ...level, ...times };
		const timeoutMs = times.warmUpMs + times.measureMs + 20_000;
		return {
			level,
			times: await runHelper<TokenTimes>("tokenClient.ts", task, timeoutMs),
			cpuSeconds: cpuSeconds(pids) - before,
		};
	};
	const notes = new Set<string>();
	const results = await freshStarts(starts, (round) =>
		withTargets(stage, "streamUpstream.ts", async (targets, missing) => {
			for (const note of missing) notes.add(note);
			await measureEach(stage, targets, round, "tokens: warm-up", (target) =>
				measure({ streams: 64, tokens: 10 }, target),
			);
			const all: Samples<Sample>[] = [];
			for (const level of measured)
				all.push(
					...(await measureEach(
						stage,
						targets,
						round,
						`tokens, ${level.streams} streams`,
						(target) => measure(level, target),
					)),
				);
			return all;
		}),
	);
	const tables = measured.map((level) => timesTable(level, results));
	return [
		{
			title: "Tokens: streams of 50 tokens/s over warm connections",
			notes: [
				`microseconds; samples of ${starts} fresh start(s) of ${times.measureMs / 1000} s together; starts and tokens of the streams are spread out`,
				"first token: from the request's write to the first token's arrival, of an upstream that answers at once; chunk: from the upstream's write of a later token to its arrival",
				"added: minus the same quantile of direct in the same rounds; p99 is the largest value where there are fewer than 100 samples",
				"CPU: of the target's processes for each token, requests included",
				...notes,
			],
			head: [
				"streams",
				"",
				"first token p50",
				"p99",
				"added p50",
				"added p99",
				"chunk p50",
				"p99",
				"added p50",
				"added p99",
				"CPU µs a token",
				"samples",
			],
			rows: tables.flatMap(({ rows }) => rows),
			data: Object.fromEntries(
				measured.map(({ streams }, index) => [streams, tables[index]?.data]),
			),
		},
	];
}

function timesTable(level: Level, results: readonly Samples<Sample>[]) {
	const summaries = new Map<string, number[]>();
	const cpu = new Map<string, string>();
	const counts = new Map<string, string>();
	for (const { target } of results) {
		const samples = samplesOf(results, target.name)?.filter(
			(sample) => sample.level === level,
		);
		if (samples === undefined) continue;
		const first = samples.flatMap(({ times }) => times.firstToken);
		const chunk = samples.flatMap(({ times }) => times.chunk);
		summaries.set(
			target.name,
			[first, chunk].flatMap((all) =>
				[0.5, 0.99].map((share) => quantile(all, share) / 1000),
			),
		);
		const received = samples.reduce((sum, one) => sum + one.times.received, 0);
		const seconds = samples.reduce((sum, one) => sum + one.cpuSeconds, 0);
		if (target.pids.length > 0)
			cpu.set(target.name, fixed((1e6 * seconds) / received));
		counts.set(target.name, `${first.length} + ${chunk.length}`);
	}
	const direct = summaries.get("direct");
	const rows = results.map((result) => {
		const { name } = result.target;
		if ("failure" in result)
			return [String(level.streams), name, result.failure];
		const summary = summaries.get(name) ?? [];
		const added = summary.map((value, index) =>
			direct === undefined || name === "direct"
				? ""
				: whole(value - (direct[index] ?? Number.NaN)),
		);
		const shown = summary.map(whole);
		return [
			String(level.streams),
			name,
			...shown.slice(0, 2),
			...added.slice(0, 2),
			...shown.slice(2),
			...added.slice(2),
			cpu.get(name) ?? "",
			counts.get(name) ?? "",
		];
	});
	return { rows, data: Object.fromEntries(summaries) };
}

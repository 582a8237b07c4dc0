import type { TokenTask, TokenTimes } from "../helpers/tokenClient.ts";
import { runHelper } from "../processes.ts";
import { quantile, type Section, whole } from "../report.ts";
import { interleave, type Samples, samplesOf } from "../rounds.ts";
import { key, type Stage, withTargets } from "../targets.ts";

const intervalMs = 20;
/** Short streams where there are few, so that there are enough first tokens. */
const levels = [
	{ streams: 1, tokens: 4 },
	{ streams: 16, tokens: 25 },
	{ streams: 64, tokens: 50 },
];

/** How much later tokens arrive through a gate than without one. */
export function tokens(stage: Stage): Promise<Section[]> {
	const rounds = stage.quick ? 1 : 3;
	const times = stage.quick
		? { warmUpMs: 300, measureMs: 500 }
		: { warmUpMs: 600, measureMs: 2_000 };
	return withTargets(stage, "streamUpstream.ts", async (targets, notes) => {
		const measure = (level: (typeof levels)[number], port: number) =>
			runHelper<TokenTimes>(
				"tokenClient.ts",
				{ port, key, intervalMs, ...level, ...times } satisfies TokenTask,
				times.warmUpMs + times.measureMs + 20_000,
			);
		await interleave(stage, targets, 1, "tokens: warm-up", ({ port }) =>
			measure({ streams: 64, tokens: 25 }, port),
		);
		const rows: string[][] = [];
		const data: Record<string, unknown> = {};
		for (const level of stage.quick
			? levels.filter((_, i) => i !== 1)
			: levels) {
			const results = await interleave(
				stage,
				targets,
				rounds,
				`tokens, ${level.streams} streams`,
				({ port }) => measure(level, port),
			);
			const table = timesTable(level.streams, results);
			rows.push(...table.rows);
			data[level.streams] = table.data;
		}
		return [
			{
				title: "Tokens: streams of 50 tokens/s over warm connections",
				notes: [
					`microseconds; samples of ${rounds} ${rounds === 1 ? "round" : "rounds"} of ${times.measureMs / 1000} s together; starts and tokens of the streams are spread out`,
					"first token: from the request's write to the first token's arrival, of an upstream that answers at once; chunk: from the upstream's write of a later token to its arrival",
					"added: minus the same quantile of direct in the same rounds; p99 is the largest value where there are fewer than 100 samples",
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
					"samples",
				],
				rows,
				data,
			},
		];
	});
}

function timesTable(streams: number, results: readonly Samples<TokenTimes>[]) {
	const summaries = new Map<string, number[]>();
	for (const { target } of results) {
		const samples = samplesOf(results, target.name);
		if (samples === undefined) continue;
		const first = samples.flatMap(({ firstToken }) => firstToken);
		const chunk = samples.flatMap((one) => one.chunk);
		summaries.set(target.name, [
			...[0.5, 0.99].map((share) => quantile(first, share) / 1000),
			...[0.5, 0.99].map((share) => quantile(chunk, share) / 1000),
			first.length,
			chunk.length,
		]);
	}
	const direct = summaries.get("direct");
	const rows = results.map((result) => {
		const { name } = result.target;
		if ("failure" in result) return [String(streams), name, result.failure];
		const summary = summaries.get(name) ?? [];
		const added = summary.map((value, index) =>
			direct === undefined || name === "direct"
				? ""
				: whole(value - (direct[index] ?? Number.NaN)),
		);
		const shown = summary.map(whole);
		return [
			String(streams),
			name,
			...shown.slice(0, 2),
			...added.slice(0, 2),
			...shown.slice(2, 4),
			...added.slice(2, 4),
			shown.slice(4).join(" + "),
		];
	});
	return { rows, data: Object.fromEntries(summaries) };
}

import { type RequestCounts, runLoad } from "../native.ts";
import { fixed, median, range, type Section, whole } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	freshStarts,
	measureEach,
	toData,
} from "../rounds.ts";
import { key, type Stage, withTargets } from "../targets.ts";

/** From the start of the process to the first answer that it relays. */
export async function startup(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 2 : 5;
	const results = await freshStarts(starts, (round) =>
		withTargets(stage, (all) =>
			measureEach(
				stage,
				all.filter(({ pids }) => pids.length > 0),
				round,
				"start-up",
				async ({ port, readyMs }) => {
					const { statuses, latency } = await runLoad<RequestCounts>(
						stage.native,
						{
							mode: "requests",
							port,
							key,
							connections: 1,
							rate: 2,
							seconds: 1,
						},
					);
					if (statuses["200"] === undefined)
						throw new Error("it did not answer");
					return { readyMs, firstMs: (latency.max ?? 0) / 1e6 };
				},
			),
		),
	);
	const figures = figuresOf(results, (samples) => {
		return {
			ready: median(samples.map(({ readyMs }) => readyMs)),
			first: median(samples.map(({ firstMs }) => firstMs)),
		};
	});
	return [
		{
			name: "start-up",
			title: "Start-up: until it listens, and the first request it ever relays",
			notes: [
				`milliseconds; median of ${starts} starts; looked at every 5 ms`,
				...failureNotes(results),
			],
			head: ["", "until it listens", "lowest–highest", "first request"],
			rows: results.map((result) => {
				const { name } = result.target;
				if ("failure" in result) return [name, result.failure];
				return [
					name,
					whole(figures[name]?.ready ?? 0),
					range(result.samples.map(({ readyMs }) => readyMs)),
					fixed(figures[name]?.first ?? 0),
				];
			}),
			figures,
			data: toData(results),
		},
	];
}

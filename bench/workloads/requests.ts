import { generator, type Load, type LoadResult, putLoad } from "../load.ts";
import { fixed, median, range, ratio, type Section, whole } from "../report.ts";
import {
	freshStarts,
	measureEach,
	type Samples,
	samplesOf,
	toData,
} from "../rounds.ts";
import { key, type Stage, withTargets } from "../targets.ts";

/** How many small requests one core relays, and what each costs. */
export async function requests(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 3;
	const seconds = stage.quick ? 1 : 2;
	// Node compiles the hot path for good only after some 40,000 requests.
	const warmUpSeconds = stage.quick ? 2 : 4;
	const load: Load = {
		path: "/api/tags",
		authorization: `Bearer ${key}`,
		connections: 32,
		seconds,
		expect: "2xx",
	};
	const notes = new Set<string>();
	const results = await freshStarts(starts, (round) =>
		withTargets(stage, "tagsUpstream.ts", async (targets, missing) => {
			for (const note of missing) notes.add(note);
			return measureEach(stage, targets, round, "requests", async (target) => {
				await putLoad(target, { ...load, seconds: warmUpSeconds });
				return putLoad(target, load);
			});
		}),
	);
	return [
		{
			title: "Requests: GET /api/tags, 400 bytes, 32 keep-alive connections",
			notes: [
				`load by ${generator}; median of ${starts} fresh start(s), each ${warmUpSeconds} s to warm up and ${seconds} s measured`,
				"direct is the most that load and upstream reach together on their core",
				busyNote,
				...notes,
			],
			...rateTable(results),
		},
	];
}

/** How far a rate can be believed. */
export const busyNote =
	"a target whose core was not busy was held back by the load's side or by other programs; its CPU a request counts then, not its rate";

/** Rates and CPU of each target, against direct and against Caddy. */
export function rateTable(
	results: readonly Samples<LoadResult>[],
): Pick<Section, "head" | "rows" | "data"> {
	const rateOf = (name: string) => {
		const samples = samplesOf(results, name);
		return samples && median(samples.map((one) => one.requestsPerSecond));
	};
	const [direct, caddy] = [rateOf("direct"), rateOf("caddy")];
	return {
		head: [
			"",
			"requests/s",
			"lowest–highest",
			"of direct",
			"of Caddy",
			"CPU µs a request",
			"requests a CPU second",
			"its core busy",
		],
		rows: results.map((result) => {
			const { name, pids } = result.target;
			if ("failure" in result) return [name, result.failure];
			const { samples } = result;
			const rates = samples.map((one) => one.requestsPerSecond);
			const rate = median(rates);
			const cpu = median(samples.map((one) => one.cpuMicroseconds));
			return [
				name,
				whole(rate),
				range(rates),
				ratio(rate, direct),
				ratio(rate, caddy),
				...(pids.length === 0
					? []
					: [
							fixed(cpu),
							whole(1e6 / cpu),
							`${whole(100 * median(samples.map((one) => one.coreShare)))} %`,
						]),
			];
		}),
		data: toData(results),
	};
}

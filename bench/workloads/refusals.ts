import { generator, type LoadResult, putLoad } from "../load.ts";
import type { Section } from "../report.ts";
import { freshStarts, measureEach } from "../rounds.ts";
import { type Stage, withTargets, wrongKey } from "../targets.ts";
import { busyNote, rateTable } from "./requests.ts";

interface Rates {
	readonly noKey: LoadResult;
	readonly wrongKey: LoadResult;
}

const kinds = [
	{ kind: "noKey", title: "no key" },
	{ kind: "wrongKey", title: "a wrong key" },
] as const;

/** How fast a flood of strangers is turned away. The upstream has no part in it. */
export async function refusals(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 2;
	const seconds = stage.quick ? 1 : 2;
	const load = {
		path: "/api/tags",
		authorization: undefined,
		connections: 32,
		seconds,
		expect: "other",
	} as const;
	const wrong = { ...load, authorization: `Bearer ${wrongKey}` };
	const notes = new Set<string>();
	const results = await freshStarts(starts, (round) =>
		withTargets(stage, "tagsUpstream.ts", async (targets, missing) => {
			for (const note of missing) notes.add(note);
			const gates = targets.filter(({ pids }) => pids.length > 0);
			return measureEach(
				stage,
				gates,
				round,
				"refusals",
				async (target): Promise<Rates> => {
					await putLoad(target, { ...wrong, seconds: stage.quick ? 1 : 3 });
					return {
						noKey: await putLoad(target, load),
						wrongKey: await putLoad(target, wrong),
					};
				},
			);
		}),
	);
	return kinds.map(({ kind, title }) => ({
		title: `Refusals: 401 for ${title}`,
		notes: [
			`load by ${generator}, 32 keep-alive connections; median of ${starts} fresh start(s) of ${seconds} s; the gate's lockout is configured out of reach`,
			busyNote,
			...notes,
		],
		...rateTable(
			results.map((result) =>
				"failure" in result
					? result
					: {
							target: result.target,
							samples: result.samples.map((rates) => rates[kind]),
						},
			),
		),
	}));
}

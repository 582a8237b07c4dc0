import { generator, putLoad } from "../load.ts";
import type { Section } from "../report.ts";
import { interleave } from "../rounds.ts";
import { type Stage, withTargets, wrongKey } from "../targets.ts";
import { rateTable } from "./requests.ts";

const kinds = [
	{ title: "no key", authorization: undefined },
	{ title: "a wrong key", authorization: `Bearer ${wrongKey}` },
];

/** How fast a flood of strangers is turned away. The upstream has no part in it. */
export function refusals(stage: Stage): Promise<Section[]> {
	const rounds = stage.quick ? 1 : 3;
	const seconds = stage.quick ? 1 : 2;
	return withTargets(stage, "tagsUpstream.ts", async (targets, notes) => {
		const gates = targets.filter(({ pids }) => pids.length > 0);
		const sections: Section[] = [];
		for (const [index, { title, authorization }] of kinds.entries()) {
			const load = {
				path: "/api/tags",
				authorization,
				connections: 32,
				seconds,
				expect: "other",
			} as const;
			const label = `refusals, ${title}`;
			if (index === 0 || !stage.quick)
				await interleave(stage, gates, 1, `${label}: warm-up`, (target) =>
					putLoad(target, { ...load, seconds: 1 }),
				);
			const results = await interleave(stage, gates, rounds, label, (target) =>
				putLoad(target, load),
			);
			sections.push({
				title: `Refusals: 401 for ${title}`,
				notes: [
					`load by ${generator}, 32 keep-alive connections; median of ${rounds} rounds of ${seconds} s; the gate's lockout is configured out of reach`,
					...notes,
				],
				...rateTable(results),
			});
		}
		return sections;
	});
}

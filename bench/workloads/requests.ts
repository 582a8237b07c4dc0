import { type RequestCounts, runLoad } from "../native.ts";
import { cpuSeconds } from "../processes.ts";
import { fixed, median, ratio, type Section, whole } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	freshStarts,
	measureEach,
	type Samples,
	toData,
} from "../rounds.ts";
import {
	foreignSource,
	key,
	type Stage,
	type Target,
	withTargets,
	wrongKey,
} from "../targets.ts";

interface Kind {
	readonly name: string;
	readonly title: string;
	readonly options: Readonly<Record<string, string | number>>;
	/** The status that every reply must have, or nothing was measured. */
	readonly status: string;
}

const replies: readonly Kind[] = [
	{
		name: "requests",
		title: "Small replies: GET /api/tags, 400 bytes, 32 keep-alive connections",
		options: { key, from: "127.0.1.1", sources: 32, connections: 32 },
		status: "200",
	},
];

const strangers = { from: "127.0.1.1", sources: 250, connections: 250 };

/** Each connection has an address of its own: what the gate holds back is one address's flood. */
const refusalKinds: readonly Kind[] = [
	{
		name: "refusals, no key",
		title: "Refusals: no key, 250 connections",
		options: { ...strangers, key: "" },
		status: "401",
	},
	{
		name: "refusals, wrong key",
		title: "Refusals: a wrong key, 250 connections",
		options: { ...strangers, key: wrongKey },
		status: "401",
	},
	{
		name: "refusals, foreign source",
		title:
			"Refusals: a source out of range with the right key, 250 connections",
		options: { ...strangers, key, from: foreignSource },
		status: "403",
	},
];

/** How many small requests one core relays, and what each costs. */
export const requests = (stage: Stage) => measureKinds(stage, replies, true);

/** How fast strangers are turned away. The upstream has no part in it. */
export const refusals = (stage: Stage) =>
	measureKinds(stage, refusalKinds, false);

interface Rate {
	readonly requestsPerSecond: number;
	/** Of the target's processes, for each request. */
	readonly cpuMicroseconds: number;
	/** The share of one core that the target used. */
	readonly coreShare: number;
}

async function measureKinds(
	stage: Stage,
	kinds: readonly Kind[],
	withDirect: boolean,
): Promise<Section[]> {
	const starts = stage.quick ? 1 : 3;
	const seconds = stage.quick ? 1 : 2;
	// Node compiles the hot path for good only after some 40,000 requests.
	const warmUpSeconds = stage.quick ? 1 : 3;
	const notes = new Set<string>();
	const sections: Section[] = [];
	for (const kind of kinds) {
		const results = await freshStarts(starts, (round) =>
			withTargets(stage, async (all, missing) => {
				for (const note of missing) notes.add(note);
				const targets = all.filter(({ pids }) => withDirect || pids.length > 0);
				return measureEach(stage, targets, round, kind.name, async (target) => {
					await measure(stage, target, kind, warmUpSeconds);
					return measure(stage, target, kind, seconds);
				});
			}),
		);
		sections.push({
			name: kind.name,
			title: kind.title,
			notes: [
				`median of ${starts} fresh start(s), each ${warmUpSeconds} s to warm up and ${seconds} s measured`,
				"a target whose core was not busy was held back by the load's side; its CPU a request counts then, not its rate",
				...notes,
				...failureNotes(results),
			],
			...rateTable(results),
		});
	}
	return sections;
}

async function measure(
	{ native }: Stage,
	target: Target,
	{ options, status }: Kind,
	seconds: number,
): Promise<Rate> {
	const cpuBefore = cpuSeconds(target.pids);
	const startedAt = performance.now();
	const counts = await runLoad<RequestCounts>(native, {
		mode: "requests",
		port: target.port,
		seconds,
		...options,
	});
	const elapsedSeconds = (performance.now() - startedAt) / 1000;
	const cpu = cpuSeconds(target.pids) - cpuBefore;
	const strange = Object.keys(counts.statuses).filter((one) => one !== status);
	if (counts.answered === 0) throw new Error("no request was answered");
	if (strange.length > 0)
		throw new Error(`it answered ${strange.join(", ")} as well`);
	return {
		requestsPerSecond: counts.answeredPerSecond,
		cpuMicroseconds: (1e6 * cpu) / counts.answered,
		coreShare: cpu / elapsedSeconds,
	};
}

/** Rates and CPU of each target, and against Caddy. */
function rateTable(
	results: readonly Samples<Rate>[],
): Pick<Section, "head" | "rows" | "data" | "figures"> {
	const figures = figuresOf(results, (samples) => {
		return {
			rate: median(samples.map((one) => one.requestsPerSecond)),
			cpu: median(samples.map((one) => one.cpuMicroseconds)),
			busy: median(samples.map((one) => one.coreShare)),
		};
	});
	return {
		figures,
		head: [
			"",
			"requests/s",
			"of Caddy",
			"CPU µs a request",
			"of Caddy",
			"its core busy",
		],
		rows: results.map((result) => {
			const { name, pids } = result.target;
			if ("failure" in result) return [name, result.failure];
			const { rate = 0, cpu = 0, busy = 0 } = figures[name] ?? {};
			return [
				name,
				whole(rate),
				ratio(rate, figures.caddy?.rate),
				...(pids.length === 0
					? []
					: [
							fixed(cpu),
							ratio(cpu, figures.caddy?.cpu),
							`${whole(100 * busy)} %`,
						]),
			];
		}),
		data: toData(results),
	};
}

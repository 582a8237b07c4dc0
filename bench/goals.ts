import type { Section } from "./report.ts";

/** What the gate is meant to reach, as a ratio to a peer of the same run or as a bound. */
interface Goal {
	readonly name: string;
	/** The gate's figure. */
	readonly figure: readonly [section: string, figure: string];
	/** Whose same figure it is divided by. */
	readonly of?: string;
	readonly least?: number;
	readonly most?: number;
	readonly unit?: string;
}

const goals: readonly Goal[] = [
	{
		name: "small replies: rate",
		figure: ["requests", "rate"],
		of: "caddy",
		least: 1.6,
	},
	{
		name: "small replies: CPU a request",
		figure: ["requests", "cpu"],
		of: "caddy",
		most: 0.65,
	},
	{
		name: "64 streams: added time a chunk, p50",
		figure: ["streams, 64", "chunk50Added"],
		of: "nginx",
		most: 1.15,
	},
	{
		name: "64 streams: added time a chunk, p99",
		figure: ["streams, 64", "chunk99Added"],
		of: "caddy",
		most: 1,
	},
	{
		name: "64 streams: time to first token, warm",
		figure: ["streams, 64", "first50"],
		of: "nginx",
		most: 2,
	},
	{
		name: "64 streams: CPU a chunk",
		figure: ["streams, 64", "cpu"],
		of: "caddy",
		most: 1.3,
	},
	...["no key", "wrong key", "foreign source"].map(
		(kind): Goal => ({
			name: `refusals, ${kind}: rate`,
			figure: [`refusals, ${kind}`, "rate"],
			of: "caddy",
			least: 1.5,
		}),
	),
	...["no key", "wrong key"].map(
		(kind): Goal => ({
			name: `flood, ${kind}: p99 of running streams moves by`,
			figure: [`flood, ${kind}`, "moved99"],
			most: 2,
			unit: "ms",
		}),
	),
	...[1, 4, 16].flatMap((streams): Goal[] => [
		{
			name: `real model, ${streams} stream(s): tokens a second`,
			figure: [`real model, ${streams}`, "ratio"],
			least: 0.99,
			unit: "× direct",
		},
		{
			name: `real model, ${streams} stream(s): added to the first token, p50`,
			figure: [`real model, ${streams}`, "added"],
			most: 2,
			unit: "ms",
		},
	]),
	...[
		["1", "1 at once"],
		["4", "4 at once"],
		["4, one prompt", "4 at once, all requests with one prompt"],
		["4, equally often", "4 at once, who asks equally often in all ways"],
	].flatMap(([load, what]): Goal[] => [
		{
			name: `a person beside a batch, ${what}: first token, p95`,
			figure: [`fair, ${load}`, "first95"],
			of: "direct",
			most: 0.125,
		},
		{
			name: `the same: tokens a second in all`,
			figure: [`fair, ${load}`, "rate"],
			of: "direct",
			least: 0.97,
		},
	]),
	{
		name: "two models, room for one: worst wait",
		figure: ["fair, two models", "turns"],
		most: 2,
		unit: "turns",
	},
	{
		name: "the same: GPU time of each from half of both",
		figure: ["fair, two models", "apart"],
		most: 0.15,
		unit: "of it",
	},
	{
		name: "the same: tokens a second",
		figure: ["fair, two models", "ofAlone"],
		least: 0.8,
		unit: "× one model alone",
	},
	{
		name: "the queue, nobody waiting: CPU added a request",
		figure: ["queue, nobody waits", "cpuAdded"],
		most: 15,
		unit: "µs",
	},
	{
		name: "the same: first byte added, p50",
		figure: ["queue, nobody waits", "firstAdded"],
		most: 0.1,
		unit: "ms",
	},
	{
		name: "10,000 waiting: memory each",
		figure: ["queue, 10000 wait", "memory"],
		most: 6,
		unit: "KB",
	},
	{
		name: "the same: choosing the next",
		figure: ["queue, 10000 wait", "choose"],
		most: 20,
		unit: "µs",
	},
	{
		name: "beside Olla, small replies: rate",
		figure: ["olla", "rate"],
		of: "olla",
		least: 1,
	},
	{
		name: "the same, 64 streams: CPU a chunk",
		figure: ["olla", "chunk"],
		of: "olla",
		most: 0.8,
	},
	{
		name: "memory a stream",
		figure: ["memory", "perStream"],
		most: 40,
		unit: "KiB",
	},
];

/** One row for each goal whose figures this run has: what it is, what was measured, whether it was met. */
export function judgeGoals(
	sections: readonly Section[],
): [name: string, goal: string, measured: string, met: string][] {
	return goals.flatMap((goal) => {
		const [section, figure] = goal.figure;
		const figures = sections.find(({ name }) => name === section)?.figures;
		const own = figures?.gate?.[figure];
		const other = goal.of === undefined ? 1 : figures?.[goal.of]?.[figure];
		if (own === undefined || other === undefined) return [];
		const value = own / other;
		const met =
			value >= (goal.least ?? -Infinity) && value <= (goal.most ?? Infinity);
		const unit = goal.of === undefined ? ` ${goal.unit}` : ` × ${goal.of}`;
		const bound =
			goal.least === undefined ? `≤ ${goal.most}` : `≥ ${goal.least}`;
		return [
			[
				goal.name,
				`${bound}${unit}`,
				`${value.toFixed(2)}${unit}`,
				met ? "met" : "**not met**",
			],
		];
	});
}

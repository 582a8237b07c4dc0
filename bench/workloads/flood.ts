import {
	type RequestCounts,
	runLoad,
	type StreamTimes,
	startLoad,
} from "../native.ts";
import { fixed, median, type Section, whole } from "../report.ts";
import {
	failureNotes,
	figuresOf,
	freshStarts,
	measureEach,
	toData,
} from "../rounds.ts";
import {
	key,
	type Stage,
	type Target,
	withTargets,
	wrongKey,
} from "../targets.ts";

interface Flood {
	readonly calm: StreamTimes;
	readonly flooded: StreamTimes;
	readonly refused: RequestCounts;
}

const floodRate = 20_000;
const streamCount = 500;

const kinds = [
	{ name: "flood, no key", key: "" },
	{ name: "flood, wrong key", key: wrongKey },
] as const;

/** What running streams feel of an address that sends as many bad requests as it can. */
export async function flood(stage: Stage): Promise<Section[]> {
	const starts = stage.quick ? 1 : 2;
	const sections: Section[] = [];
	for (const kind of kinds) {
		const results = await freshStarts(starts, (round) =>
			withTargets(
				stage,
				(targets) =>
					measureEach(
						stage,
						targets.filter(({ pids }) => pids.length > 0),
						round,
						kind.name,
						(target) => measure(stage, target, kind.key),
					),
				{ gate: { defaultLockout: true } },
			),
		);
		const figures = figuresOf(results, (samples) => {
			const middle = (value: (one: Flood) => number | undefined) =>
				median(samples.map((one) => value(one) ?? Number.NaN));
			const calm99 = middle(({ calm }) => calm.chunk.p99) / 1e6;
			const flooded99 = middle(({ flooded }) => flooded.chunk.p99) / 1e6;
			return {
				calm50: middle(({ calm }) => calm.chunk.p50) / 1e6,
				flooded50: middle(({ flooded }) => flooded.chunk.p50) / 1e6,
				calm99,
				flooded99,
				moved99: flooded99 - calm99,
				answered: middle(({ refused }) => refused.answeredPerSecond),
			};
		});
		sections.push({
			name: kind.name,
			title: `${streamCount} streams of 20 tokens/s while one address sends ${whole(floodRate)} requests/s with ${kind.key === "" ? "no key" : "a wrong key"} over 64 connections`,
			notes: [
				`milliseconds from the upstream's write of a token to its arrival; median of ${starts} fresh start(s); the gate with its lockout as it comes`,
				"a connection sends its next request when it has had its answer: who answers slowly is sent less",
				...failureNotes(results),
			],
			head: [
				"",
				"p50 calm",
				"flooded",
				"p99 calm",
				"flooded",
				"p99 moved by",
				"bad requests answered a second",
			],
			rows: results.map((result) => {
				const { name } = result.target;
				if ("failure" in result) return [name, result.failure];
				const figure = figures[name] ?? {};
				return [
					name,
					...["calm50", "flooded50", "calm99", "flooded99", "moved99"].map(
						(column) => fixed(figure[column] ?? 0, 2),
					),
					whole(figure.answered ?? 0),
				];
			}),
			figures,
			data: toData(results),
		});
	}
	return sections;
}

async function measure(
	{ native, quick }: Stage,
	{ port }: Target,
	floodKey: string,
): Promise<Flood> {
	const streams = {
		mode: "streams",
		port,
		key,
		from: "127.0.2.1",
		streams: streamCount,
		tokens: 40,
		intervalUs: 50_000,
		// So that they do not all begin and end together.
		warmUpMs: 2_500,
		measureMs: quick ? 1_000 : 2_000,
	};
	await runLoad<StreamTimes>(native, {
		...streams,
		warmUpMs: 1_000,
		measureMs: 500,
	});
	const calm = await runLoad<StreamTimes>(native, streams);
	const attack = startLoad(native, {
		mode: "requests",
		port,
		key: floodKey,
		from: "127.0.3.1",
		connections: 64,
		rate: floodRate,
		// It ends behind the streams.
		seconds: quick ? 6 : 7,
	});
	const flooded = await runLoad<StreamTimes>(native, streams);
	const refused = JSON.parse(
		(await attack.lines).at(-1) ?? "",
	) as RequestCounts;
	if (calm.lost + flooded.lost > 0)
		throw new Error(`${calm.lost + flooded.lost} streams were cut`);
	return { calm, flooded, refused };
}

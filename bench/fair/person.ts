import { fixed, quantile, type Section } from "../report.ts";
import type { LoadUser } from "./load.ts";
import {
	direct,
	failures,
	gateBatch,
	gateFair,
	gateNote,
	gateOff,
	litellmNote,
	loadNote,
	type Measured,
	measure,
	ollamaVersion,
	openWays,
	rateOf,
	type Stage,
	viaLitellm,
	type Way,
	waitOf,
	waitsOf,
	warmUp,
} from "./stage.ts";

const batchTokens = 32;
const personTokens = 8;
const workers = 12;
const pauseMs = 500;
/** The ways take turns so often: the machine is not equally fast all the time. */
const fewRounds = 3;
/** Where the ways hardly differ. */
const manyRounds = 10;

/** What a load has of its own. */
interface Asking {
	/**
	 * How often the person asks, in all ways alike, as long as no reply takes longer; by
	 * default again soon after each reply, so that whoever waits less asks more.
	 */
	readonly everyMs?: number;
	/** Whether all requests have one prompt: nothing but the replies takes time then. */
	readonly samePrompt?: boolean;
}

/**
 * What a person waits for a first token while a batch user keeps twelve
 * requests open, by way.
 *
 * @param parallel how many Ollama works on at once: OLLAMA_NUM_PARALLEL
 */
export async function person(
	stage: Stage,
	parallel: number,
	{ everyMs, samePrompt = false }: Asking = {},
): Promise<Section[]> {
	const rounds = samePrompt ? manyRounds : fewRounds;
	const kind = samePrompt
		? "one prompt"
		: everyMs !== undefined
			? "equally often"
			: undefined;
	const names =
		kind === undefined
			? [direct, viaLitellm, gateOff, gateFair, gateBatch]
			: [direct, gateFair, gateBatch];
	const asking = `asking for ${personTokens} tokens ${everyMs === undefined ? "half a second after each reply" : `every ${everyMs / 1000} s`}`;
	const { ways, notes, close } = await openWays(
		stage,
		{ OLLAMA_NUM_PARALLEL: `${parallel}` },
		names,
	);
	const ofRounds: Measured[] = [];
	try {
		for (const way of inTurns(ways, rounds)) {
			stage.progress(`a person beside a batch, ${parallel}: ${way.name}`);
			await warmUp(stage, way, "smol");
			const users: LoadUser[] = [
				{
					...{ name: "batch", key: way.keys.batch, model: "smol", workers },
					...{ tokens: batchTokens, pauseMs: 0, afterMs: 0, samePrompt },
				},
				{
					...{ name: "person", key: way.keys.person, model: "smol" },
					...{ workers: 1, tokens: personTokens, pauseMs, afterMs: 2_000 },
					samePrompt,
					...(everyMs !== undefined && { everyMs }),
				},
			];
			ofRounds.push(await measure(stage, way, stage.seconds, users));
		}
	} finally {
		await close();
	}
	const measured = ways.map((way) => together(ofRounds, way));
	const figures = Object.fromEntries(
		measured.map((one) => [one.way.name, figuresOf(one)]),
	);
	const base = figures[direct];
	const times = (value: number, of: number | undefined, digits: number) =>
		of === undefined ? "" : fixed(value / of, digits);
	return [
		{
			name: ["fair", parallel, ...(kind === undefined ? [] : [kind])].join(
				", ",
			),
			title: `${titleOf(kind)}, OLLAMA_NUM_PARALLEL=${parallel}`,
			notes: [
				`Ollama ${ollamaVersion} with SmolLM2-135M on one core; each way by turns ${rounds} times for ${stage.seconds} s, with the person, from the third second on, ${asking}`,
				"gate: both keys of the class normal, so that only the service of each counts; gate, batch key: the batch user's key has the class batch",
				gateNote,
				litellmNote,
				loadNote(ofRounds),
				...notes,
				...failures(measured),
			],
			head: [
				...["", "person's requests", "first token p50, s", "p95", "worst"],
				...["p95 of direct", "batch's first token p50, s"],
				...["tokens/s in all", "of direct"],
			],
			rows: Object.entries(figures).map(([name, one]) => [
				...[name, fixed(one.count, 0)],
				...[fixed(one.first50, 2), fixed(one.first95, 2)],
				...[fixed(one.worst, 2), times(one.first95, base?.first95, 3)],
				...[fixed(one.batch50, 2), fixed(one.rate)],
				times(one.rate, base?.rate, 2),
			]),
			figures,
			data: waitsOf(ofRounds.slice(0, ways.length)),
		},
	];
}

function titleOf(kind: "one prompt" | "equally often" | undefined): string {
	if (kind === "one prompt") return "The same, all requests with one prompt";
	if (kind === "equally often")
		return "The same, the person asking equally often in all ways";
	return `A person beside a batch: ${workers} requests of ${batchTokens} tokens kept open`;
}

/** All ways in each round; every other round begins with the last. */
function inTurns(ways: readonly Way[], rounds: number): Way[] {
	return Array.from({ length: rounds }, (_, round) =>
		round % 2 === 0 ? ways : ways.toReversed(),
	).flat();
}

/** What a way made of all rounds. */
function together(measured: readonly Measured[], way: Way): Measured {
	const own = measured.filter((one) => one.way === way);
	return {
		way,
		asked: own.flatMap(({ asked }) => asked),
		seconds: own.reduce((sum, { seconds }) => sum + seconds, 0),
		loadBefore: own[0]?.loadBefore ?? Number.NaN,
	};
}

function figuresOf(measured: Measured) {
	const waits = (user: string) =>
		measured.asked.filter((one) => one.user === user).map(waitOf);
	const own = waits("person");
	return {
		first50: quantile(own, 0.5),
		first95: quantile(own, 0.95),
		worst: Math.max(...own),
		count: own.length,
		batch50: quantile(waits("batch"), 0.5),
		rate: rateOf(measured),
	};
}

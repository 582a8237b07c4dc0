import { fixed, median, type Section } from "../report.ts";
import type { Asked, LoadUser } from "./load.ts";
import {
	direct,
	failures,
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

const tokens = 32;
const workers = 4;
const models = ["smol", "other"] as const;
/** How long a model keeps its turn, in times that it took to load: `queue.turnFactor` as it comes. */
const turnFactor = 8;

/** Two users of two models, of which one fits into memory. */
export async function twoModels(stage: Stage): Promise<Section[]> {
	const seconds = 3 * stage.seconds;
	const { ways, notes, close } = await openWays(
		stage,
		{ OLLAMA_MAX_LOADED_MODELS: "1", OLLAMA_NUM_PARALLEL: "1" },
		[direct, viaLitellm, gateOff, gateFair],
	);
	const measured: Measured[] = [];
	let loadSeconds = Number.NaN;
	let alone = Number.NaN;
	try {
		const [first] = ways;
		if (first === undefined) throw new Error("there is no way to measure");
		const bare: Way = { ...first, family: "ollama", keys: first.keys };
		if (first.family === "ollama") {
			stage.progress("two models: how long a load takes");
			loadSeconds = await timeLoads(stage, bare);
		}
		stage.progress("two models: one of them alone");
		await warmUp(stage, first, "smol");
		const [user] = usersOf(first);
		if (user !== undefined)
			alone = rateOf(await measure(stage, first, stage.seconds, [user]));
		for (const way of ways) {
			stage.progress(`two models: ${way.name}`);
			await warmUp(stage, way, "smol");
			measured.push(await measure(stage, way, seconds, usersOf(way)));
		}
	} finally {
		await close();
	}
	const figures = Object.fromEntries(
		measured.map((one) => [one.way.name, figuresOf(one, loadSeconds, alone)]),
	);
	const seen = (value: number | undefined, digits = 1) =>
		value === undefined || Number.isNaN(value) ? "" : fixed(value, digits);
	return [
		{
			name: "fair, two models",
			title: `Two users of two models, room for one: ${workers} requests of ${tokens} tokens kept open by each`,
			notes: [
				`Ollama ${ollamaVersion} with OLLAMA_MAX_LOADED_MODELS=1, SmolLM2-135M twice as two files, on one core; for ${seconds} s each way`,
				`a load takes ${seen(loadSeconds, 2)} s (median of 4), so a turn of the gate is ${seen(turnFactor * loadSeconds)} s; one model alone makes ${seen(alone)} tokens a second`,
				"a wait is for the first token; worst is of all requests that began in time, also those answered after it",
				"GPU time is what Ollama says a reply took without its load, as far as it fell into the time; apart is how far each user is from half of both",
				gateNote,
				litellmNote,
				loadNote(measured),
				...notes,
				...failures(measured),
			],
			head: [
				...["", "replies: smol", "other", "worst wait, s: smol", "other"],
				...["in turns", "GPU time, s: smol", "other", "apart"],
				...["tokens/s in all", "of one model alone"],
			],
			rows: Object.entries(figures).map(([name, one]) => [
				...[name, fixed(one.replies0, 0), fixed(one.replies1, 0)],
				...[fixed(one.worst0), fixed(one.worst1), seen(one.turns)],
				...[seen(one.gpu0), seen(one.gpu1)],
				one.apart === undefined ? "" : `${fixed(100 * one.apart, 0)} %`,
				...[fixed(one.rate), seen(one.ofAlone, 2)],
			]),
			figures,
			data: waitsOf(measured),
		},
	];
}

function usersOf({ keys }: Way): LoadUser[] {
	return models.map((model, index) => ({
		...{ name: model, key: index === 0 ? keys.batch : keys.person, model },
		...{ workers, tokens, pauseMs: 0, afterMs: 0 },
	}));
}

/** The median of four swaps, in seconds. */
async function timeLoads(stage: Stage, way: Way): Promise<number> {
	await warmUp(stage, way, "smol");
	const loads: number[] = [];
	for (const model of ["other", "smol", "other", "smol"])
		loads.push((await warmUp(stage, way, model)).loadMs ?? Number.NaN);
	return median(loads) / 1000;
}

interface Figures {
	readonly [name: string]: number;
	readonly replies0: number;
	readonly replies1: number;
	readonly worst0: number;
	readonly worst1: number;
	readonly rate: number;
}

function figuresOf(
	measured: Measured,
	loadSeconds: number,
	alone: number,
): Figures {
	const of = (model: string) =>
		measured.asked.filter((one) => one.user === model);
	const [own, others] = models.map(of) as [Asked[], Asked[]];
	const worst = (asked: readonly Asked[]) => Math.max(0, ...asked.map(waitOf));
	const answered = (asked: readonly Asked[]) =>
		asked.filter(({ tokensInTime }) => tokensInTime > 0).length;
	const rate = rateOf(measured);
	const worstOfAll = Math.max(worst(own), worst(others));
	const hasTimes = measured.asked.some(({ gpuMs }) => gpuMs !== undefined);
	const [gpu0, gpu1] = [gpuSeconds(own), gpuSeconds(others)];
	return {
		...{ replies0: answered(own), replies1: answered(others) },
		...{ worst0: worst(own), worst1: worst(others), worst: worstOfAll, rate },
		...(Number.isNaN(loadSeconds)
			? {}
			: { turns: worstOfAll / (turnFactor * loadSeconds) }),
		...(Number.isNaN(alone) ? {} : { ofAlone: rate / alone }),
		...(hasTimes
			? { gpu0, gpu1, apart: Math.abs(gpu0 - gpu1) / (gpu0 + gpu1) }
			: {}),
	};
}

/** What replies took of Ollama's time while requests began, in seconds. */
function gpuSeconds(asked: readonly Asked[]): number {
	return asked.reduce(
		(sum, { gpuMs = 0, tokens, tokensInTime }) =>
			sum + (tokens === 0 ? 0 : (gpuMs * tokensInTime) / tokens / 1000),
		0,
	);
}

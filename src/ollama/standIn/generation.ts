import type { ServerResponse } from "node:http";
import type { Body } from "./body.ts";
import { Failed } from "./failed.ts";
import { defaultContext, longestContext, type Model } from "./models.ts";
import { replyShapeOf } from "./replies.ts";
import type { Generation, ReplyShape } from "./replyShape.ts";
import type { Runner, Scheduler } from "./scheduler.ts";
import { type Options, readOptions } from "./values.ts";

/** Up to this size a body is kept, to know its prompt again. */
const rememberedBytes = 64 * 1024;

/** How fast the stand-in's models are. */
export interface Pace {
	/** Silence before the first token: the prompt is read. */
	readonly firstTokenMs: number;
	readonly tokenIntervalMs: number;
}

/** What goes wrong in the middle of a stream. */
export const midStream = [
	"reset-after-headers",
	"stall-after-headers",
	"die-mid-stream",
	"stall-mid-stream",
	"truncate",
	"error-mid-stream",
] as const;
export type MidStream = (typeof midStream)[number];

/** What Ollama says when its runner dies at work. */
const runnerDied =
	"an error was encountered while running the model: unexpected EOF";

const answer =
	"This is llamagate's built-in stand-in speaking, not a model. It answers as Ollama does, one token at a time, " +
	"so that you can watch a stream come through the gate as it is made. Put a real Ollama on this machine, " +
	"start the demo again, and the very same commands will reach it instead.";

/** What every model of the stand-in has to say. */
export const answerTokens = answer.match(/\S+\s?|\s/g) ?? [];

/** The options that a request of this family sets, and where its family puts them. */
export function optionsOf(body: Body): Options {
	return readOptions(body.inner("options"), { defaultContext, longestContext });
}

/** Waits for the model to be loaded. */
export function runnerOf(
	scheduler: Scheduler,
	model: Model,
	options: Options,
	keepAliveMs: number | undefined,
	signal: AbortSignal,
): Promise<Runner> {
	return scheduler.runnerFor({
		file: model.file,
		name: model.name,
		launchOptions: options.launch,
		contextLength: options.contextLength,
		keepAliveMs,
		signal,
	});
}

export interface Job {
	readonly path: string;
	readonly body: Body;
	/** The body as it came. */
	readonly bytes: Buffer;
	/** The model as the request names it, which the reply repeats. */
	readonly asked: string;
	readonly options: Options;
	readonly runner: Runner;
	readonly startedAtMs: number;
	readonly loadedAtMs: number;
	readonly signal: AbortSignal;
	readonly pace: Pace;
	readonly fault: MidStream | undefined;
}

/** Generates when it is the request's turn: not a byte before the first token. */
export async function generate(job: Job, res: ServerResponse): Promise<void> {
	const { path, body, runner, signal, pace } = job;
	const shape = replyShapeOf(
		path,
		body.inner("stream_options").get("include_usage") === true,
	);
	if (shape === undefined) return;
	const release = await runner.slot(signal);
	try {
		const generation = describe(job);
		runner.lastAsked =
			job.bytes.length > rememberedBytes ? undefined : job.bytes;
		const stream = body.get("stream");
		const streams = path.startsWith("/api/")
			? stream !== false
			: stream === true;
		await pause(pace.firstTokenMs, signal);
		if (runner.isDead && !signal.aborted) throw new Failed(500, runnerDied);
		if (streams) await writeStream(job, shape, generation, res);
		else await writeWhole(job, shape, generation, res);
	} finally {
		release();
	}
}

function describe({ path, body, asked, options, ...job }: Job): Generation {
	const limit = path.startsWith("/api/")
		? options.tokens
		: (body.get("max_tokens") ?? body.get("max_output_tokens"));
	const isLimited = typeof limit === "number" && limit > 0;
	const count = isLimited ? limit : answerTokens.length;
	return {
		model: asked,
		tokens: Array.from(
			{ length: count },
			(_, index) => answerTokens[index % answerTokens.length] ?? "",
		),
		isCut: isLimited,
		isRepeated: job.runner.lastAsked?.equals(job.bytes) === true,
		startedAtMs: job.startedAtMs,
		loadedAtMs: job.loadedAtMs,
		request: {
			instructions: body.get("instructions"),
			tools: body.get("tools"),
		},
	};
}

async function writeWhole(
	{ path, runner, signal, pace }: Job,
	shape: ReplyShape,
	generation: Generation,
	res: ServerResponse,
): Promise<void> {
	// The runner may die, or the client leave, in the middle.
	for (const _ of pace.tokenIntervalMs > 0 ? generation.tokens : []) {
		if (signal.aborted || runner.isDead) break;
		await pause(pace.tokenIntervalMs, signal);
	}
	if (signal.aborted) return;
	if (runner.isDead) throw new Failed(500, runnerDied);
	const end = path.startsWith("/v1/") ? "\n" : "";
	const text = JSON.stringify(shape.whole(generation)) + end;
	res.writeHead(200, {
		"content-type": shape.wholeContentType,
		"content-length": Buffer.byteLength(text),
	});
	res.end(text);
}

async function writeStream(
	job: Job,
	shape: ReplyShape,
	generation: Generation,
	res: ServerResponse,
): Promise<void> {
	const { runner, signal, fault } = job;
	if (signal.aborted) return;
	res.writeHead(200, { "content-type": shape.contentType, ...shape.headers });
	if (fault === "reset-after-headers") {
		res.flushHeaders();
		return void setImmediate(() => res.socket?.resetAndDestroy());
	}
	if (fault === "stall-after-headers") {
		res.flushHeaders();
		return ended(signal);
	}
	if (shape.begin !== undefined) res.write(shape.begin(generation));
	const breakAfter = Math.min(3, generation.tokens.length - 1);
	for (const [index, token] of generation.tokens.entries()) {
		await writeToken(res, shape.token(generation, token, index), job);
		if (signal.aborted) return;
		if (runner.isDead) return void res.end(shape.died(generation));
		if (index !== breakAfter) continue;
		if (fault === "die-mid-stream") {
			// What was generated had left before the runner died.
			await pause(10);
			res.socket?.resetAndDestroy();
			return;
		}
		if (fault === "stall-mid-stream") return ended(signal);
		if (fault === "truncate") return void res.end();
		if (fault === "error-mid-stream")
			return void res.end(shape.died(generation));
	}
	res.end(shape.end(generation));
}

/** Writes, then waits as long as the next token takes or the reader needs. */
async function writeToken(
	res: ServerResponse,
	piece: string,
	{ signal, pace }: Job,
): Promise<void> {
	if (!res.write(piece) && !signal.aborted)
		await new Promise<void>((resolve) => {
			const goOn = () => {
				res.off("drain", goOn);
				signal.removeEventListener("abort", goOn);
				resolve();
			};
			res.on("drain", goOn);
			signal.addEventListener("abort", goOn);
		});
	if (pace.tokenIntervalMs > 0) await pause(pace.tokenIntervalMs);
}

/** Waits, at the longest until the client leaves. */
export function pause(
	durationMs: number,
	signal?: AbortSignal,
): Promise<void> | undefined {
	if (durationMs <= 0 || signal?.aborted) return undefined;
	return new Promise((resolve) => {
		const goOn = () => {
			clearTimeout(timer);
			signal?.removeEventListener("abort", goOn);
			resolve();
		};
		const timer = setTimeout(goOn, durationMs);
		signal?.addEventListener("abort", goOn);
	});
}

function ended(signal: AbortSignal): Promise<void> | undefined {
	return signal.aborted
		? undefined
		: new Promise((resolve) =>
				signal.addEventListener("abort", () => resolve(), { once: true }),
			);
}

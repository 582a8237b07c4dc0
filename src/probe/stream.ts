import { codeOf } from "../net/errorCode.ts";
import type { HistogramBin } from "../report/histogram.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import {
	type Caller,
	isObject,
	isReply,
	type NoReply,
	type OpenReply,
	readBody,
	readError,
	readObject,
} from "./caller.ts";
import { checks, finding, ok, unknown } from "./checks.ts";

/** How a stream arrived. Times are in milliseconds. */
export interface Timings {
	readonly model: string;
	/** From the request to the first piece of text. */
	readonly firstTokenMs: number;
	/** From the first piece of text to the last. */
	readonly spanMs: number;
	/** Lines with a piece of text. */
	readonly tokens: number;
	/** How many times text arrived. */
	readonly arrivals: number;
	/** Between one arrival and the next. */
	readonly gapsMs: readonly number[];
	/** How long Ollama says that a token took it, if it does. */
	readonly madePerTokenMs: number | undefined;
}

const maxModels = 3;
const askedTokens = 48;
/** Long enough that leaving it early makes a difference, short enough to end by itself. */
const leftTokens = 400;
/** Below this, tokens that come together may well have been made together. */
const fastTokenMs = 4;
/** Silence in a stream that has begun. */
const maxSilenceMs = 60_000;
/** From its first token to its end. */
const maxStreamMs = 180_000;
const maxStreamBytes = 4 * 2 ** 20;
const maxLineLength = 256 * 2 ** 10;
/** A cloud model may make more than it was asked for. */
const maxTokens = 1_000;
const maxRefusalBytes = 64 * 2 ** 10;
const afterLeavingMs = 5_000;
const maxNextStreamMs = 60_000;

/**
 * Makes one short reply, measures how it comes, leaves another in the middle.
 *
 * @param models the first of them that can chat is asked, of three at the most
 */
export async function checkStream(
	caller: Caller,
	key: string,
	models: readonly string[],
	waitMs: number,
): Promise<{ results: Result[]; timings?: Timings }> {
	const stop = (result: Result, reason: string) => ({
		results: [
			result,
			...[checks.uncollected, checks.afterLeaving, checks.cancel].map((check) =>
				unknown(check, reason),
			),
		],
	});
	const [model = "", ...others] = models.slice(0, maxModels);
	const reply = await ask(caller, key, model, askedTokens, waitMs);
	if (!isReply(reply) || reply.status !== 200) {
		const refusal = await judgeRefusal(reply, key, model);
		return isReply(reply) && isForModel(reply) && others.length > 0
			? checkStream(caller, key, others, waitMs)
			: stop(refusal, "no stream began");
	}
	const outcome = await readWhole(reply, model, reply.askedAt);
	if (typeof outcome === "string")
		return stop(
			finding(
				checks.stream,
				[excerpt(outcome, key)],
				"On the server: journalctl -u llamagate -u ollama -n 50",
			),
			"the stream broke off",
		);
	return {
		timings: outcome,
		results: [
			ok(
				checks.stream,
				`first token after ${formatMs(outcome.firstTokenMs)}, ${outcome.tokens} tokens in ${formatMs(outcome.spanMs)}, from ${excerpt(model, key)}`,
			),
			await checkCollecting(caller, key, outcome),
			...(await checkLeaving(caller, key, outcome)),
		],
	};
}

/** Whether a refusal is for this model, which cannot chat or is not for this key. */
function isForModel({ status }: OpenReply): boolean {
	return status === 400 || status === 403 || status === 404;
}

/** One pause on the way looks like a proxy that collects; two in a row are none. */
async function checkCollecting(
	caller: Caller,
	key: string,
	timings: Timings,
): Promise<Result> {
	const judged = judgeCollecting(timings);
	if (judged.state !== "finding") return judged;
	const { model } = timings;
	const reply = await ask(caller, key, model, askedTokens, maxSilenceMs);
	if (!isReply(reply)) return judged;
	const again = await readWhole(reply, model, reply.askedAt);
	if (typeof again === "string" || judgeCollecting(again).state === "finding")
		return judged;
	return unknown(
		judged,
		...judged.evidence,
		"another stream came as it was made, so this one may have stalled on the way",
	);
}

type Asked = OpenReply & { askedAt: number };

async function ask(
	caller: Caller,
	key: string,
	model: string,
	tokens: number,
	waitMs: number,
): Promise<Asked | NoReply> {
	const askedAt = performance.now();
	const reply = await caller.open(
		{
			method: "POST",
			path: "/api/chat",
			key,
			body: JSON.stringify({
				model,
				messages: [
					{ role: "user", content: "Count from one to one hundred in words." },
				],
				stream: true,
				options: { num_predict: tokens },
			}),
		},
		{ waitMs, silenceMs: maxSilenceMs, wholeMs: waitMs + maxStreamMs },
	);
	return isReply(reply) ? { ...reply, askedAt } : reply;
}

/** The pieces of text of a stream, as many as each arrival brings, and Ollama's last line. */
async function* readArrivals(chunks: AsyncIterable<Buffer>) {
	const decoder = new TextDecoder();
	let rest = "";
	let sizeBytes = 0;
	for await (const chunk of chunks) {
		const at = performance.now();
		sizeBytes += chunk.length;
		if (sizeBytes > maxStreamBytes) throw new Error("more than 4 MiB");
		const lines = (rest + decoder.decode(chunk, { stream: true })).split("\n");
		rest = lines.pop() ?? "";
		if (rest.length > maxLineLength)
			throw new Error("a line of more than 256 KiB");
		let tokens = 0;
		let last: Record<string, unknown> | undefined;
		let problem: string | undefined;
		for (const line of lines) {
			if (line.trim() === "") continue;
			const part = readObject(line);
			problem =
				part === undefined
					? "a line that is not JSON"
					: part.error !== undefined
						? String(part.error)
						: undefined;
			if (part === undefined || problem !== undefined) break;
			const message = isObject(part.message) ? part.message : {};
			if (`${message.thinking ?? ""}${message.content ?? ""}` !== "")
				tokens += 1;
			if (part.done === true) last = part;
		}
		yield { at, tokens, last };
		if (problem !== undefined) throw new Error(problem);
	}
}

/** @returns what went wrong, if it did not come to its end */
async function readWhole(
	{ chunks }: OpenReply,
	model: string,
	askedAt: number,
): Promise<Timings | string> {
	const arrivedAt: number[] = [];
	let tokens = 0;
	let last: Record<string, unknown> | undefined;
	try {
		for await (const arrival of readArrivals(chunks)) {
			if (arrival.tokens > 0) arrivedAt.push(arrival.at);
			tokens += arrival.tokens;
			last ??= arrival.last;
			if (tokens > maxTokens)
				throw new Error(
					`more than ${maxTokens} tokens, and ${askedTokens} were asked for`,
				);
		}
	} catch (error) {
		const { message } = error as Error;
		return `it broke off after ${tokens} tokens: ${message === "" ? codeOf(error) : message}`;
	}
	const [first] = arrivedAt;
	if (last === undefined)
		return `it ended after ${tokens} tokens, without its last line`;
	if (first === undefined) return "it ended without a token";
	const { eval_duration: madeInNs, eval_count: made } = last;
	return {
		model,
		firstTokenMs: first - askedAt,
		spanMs: (arrivedAt.at(-1) ?? first) - first,
		tokens,
		arrivals: arrivedAt.length,
		gapsMs: arrivedAt.slice(1).map((at, i) => at - (arrivedAt[i] ?? at)),
		madePerTokenMs:
			typeof madeInNs === "number" && typeof made === "number" && made > 0
				? madeInNs / 1e6 / made
				: undefined,
	};
}

/**
 * Whether the tokens came as they were made. Ollama tells at the end how long
 * each took it; what comes at more than twice that pace, or in far fewer pieces
 * than tokens, was held back somewhere.
 */
export function judgeCollecting(timings: Timings): Result {
	const { tokens, arrivals, spanMs, madePerTokenMs } = timings;
	const check = checks.uncollected;
	const cameInMs = spanMs / Math.max(1, tokens - 1);
	const seen = `${tokens} tokens in ${arrivals} arrivals, one every ${formatMs(cameInMs)}${madePerTokenMs === undefined ? "" : `; Ollama made one every ${formatMs(madePerTokenMs)}`}`;
	if (tokens < 6) return unknown(check, seen, "these are too few to tell");
	const wasHeldBack =
		arrivals * 2 < tokens ||
		(madePerTokenMs !== undefined && cameInMs < madePerTokenMs / 2);
	const gaps = `gaps between arrivals: ${countGaps(timings.gapsMs)
		.filter(({ count }) => count > 0)
		.map((bin) => `${bin.count} of ${formatRange(bin)}`)
		.join(", ")}`;
	if (!wasHeldBack) return ok(check, seen, gaps);
	if ((madePerTokenMs ?? cameInMs) < fastTokenMs)
		return unknown(
			check,
			seen,
			gaps,
			"made that fast, tokens come together by themselves",
		);
	return finding(
		check,
		[seen, gaps],
		"The gate passes on each token as it comes. Turn off buffering in the proxy before it (nginx: proxy_buffering off), or in the VPN or virus scanner of this device.",
	);
}

async function judgeRefusal(
	reply: OpenReply | NoReply,
	key: string,
	model: string,
): Promise<Result> {
	if (!isReply(reply))
		return reply.code === "UND_ERR_HEADERS_TIMEOUT"
			? finding(
					checks.stream,
					[`${model} was asked, and nothing came for too long`],
					"On the server: ollama ps, and journalctl -u ollama -n 50. If the model needs longer to load: --timeout 15m",
				)
			: finding(
					checks.stream,
					[`no answer (${reply.code})`],
					"On the server: journalctl -u llamagate -n 50",
				);
	// What came says enough, or nothing does.
	const { body } = await readBody(reply.chunks, maxRefusalBytes);
	const said = excerpt(readError("native", body) ?? "", key);
	const evidence = `POST /api/chat for ${excerpt(model, key)}: ${reply.status}${said === "" ? "" : `, "${said}"`}`;
	if (reply.status === 429 || reply.status === 503)
		return unknown(checks.stream, evidence);
	return finding(
		checks.stream,
		[evidence],
		isForModel(reply)
			? "Name a model that can chat and that the key may use: --model NAME"
			: "On the server: systemctl status ollama, then sudo llamagate check",
	);
}

async function checkLeaving(
	caller: Caller,
	key: string,
	{ model, spanMs, tokens }: Timings,
): Promise<Result[]> {
	const both = (reason: string) =>
		[checks.afterLeaving, checks.cancel].map((check) => unknown(check, reason));
	const left = await ask(caller, key, model, leftTokens, maxSilenceMs);
	if (!isReply(left) || left.status !== 200)
		return both("a second stream did not begin");
	let seen = 0;
	// The first stream may have waited for the model to be loaded; this one has not.
	let warmMs: number | undefined;
	try {
		for await (const arrival of readArrivals(left.chunks)) {
			seen += arrival.tokens;
			if (seen > 0) warmMs ??= arrival.at - left.askedAt;
			if (arrival.last !== undefined)
				return both(
					`the reply had ended after ${seen} tokens, before it could be left`,
				);
			if (seen >= 3) break;
		}
	} catch (error) {
		return both(`the stream broke off (${codeOf(error)})`);
	}
	left.leave();
	if (warmMs === undefined) return both("the stream ended without a token");
	const leftAt = performance.now();

	const answer = await caller.call({ method: "GET", path: "/api/version" });
	const answeredMs = performance.now() - leftAt;
	// Asked without a key, so that any key can be probed with: a refusal is an answer.
	const results = [
		isReply(answer) && answeredMs < afterLeavingMs
			? ok(
					checks.afterLeaving,
					`left after ${seen} tokens; the next call was answered after ${formatMs(answeredMs)}`,
				)
			: finding(
					checks.afterLeaving,
					[
						isReply(answer)
							? `the next call was answered only after ${formatMs(answeredMs)}`
							: `the next call was not answered (${answer.code})`,
					],
					"On the server: journalctl -u llamagate -n 50",
				),
	];

	// At the pace of the first stream.
	const restMs = (spanMs / Math.max(1, tokens - 1)) * (leftTokens - seen);
	const waitMs = Math.min(
		maxNextStreamMs,
		1_000 + Math.ceil(Math.max(...waitsOf(warmMs, restMs))),
	);
	const next = await ask(caller, key, model, 3, waitMs);
	if (!isReply(next))
		return [
			...results,
			next.code === "UND_ERR_HEADERS_TIMEOUT"
				? judgeCancel(waitMs, warmMs, restMs)
				: finding(
						checks.cancel,
						[`the next stream did not begin (${next.code})`],
						cancelFix,
					),
		];
	if (next.status !== 200) {
		next.leave();
		return [
			...results,
			unknown(checks.cancel, `the next stream was refused (${next.status})`),
		];
	}
	const second = await readWhole(next, model, next.askedAt);
	if (typeof second === "string")
		return [...results, unknown(checks.cancel, excerpt(second, key))];
	return [...results, judgeCancel(second.firstTokenMs, warmMs, restMs)];
}

const cancelFix =
	'On the server, the log line of the stream that was left says "outcome":"client_gone"; if Ollama goes on nevertheless: ollama ps, and a newer Ollama.';

/** A wait of less than a second is a busy network's or server's. */
const noWaitMs = 1_000;

/** How long is as usual, and how long as what was left to do. */
function waitsOf(warmMs: number, restMs: number): [number, number] {
	return [Math.max(warmMs * 2, noWaitMs), restMs * 0.7];
}

/**
 * What the wait for the next stream says about the one that was left.
 *
 * @param waitedMs until the next stream's first token, or until it was given up
 * @param warmMs until the first token of the one that was left
 * @param restMs how long that one would have gone on
 */
export function judgeCancel(
	waitedMs: number,
	warmMs: number,
	restMs: number,
): Result {
	const seen = `waited ${formatMs(waitedMs)} for the next stream's first token; the one that was left had begun after ${formatMs(warmMs)} and had about ${formatMs(restMs)} to go`;
	if (restMs < 2_000)
		return unknown(
			checks.cancel,
			seen,
			"that is too little to tell whether it went on",
		);
	const waits = waitsOf(warmMs, restMs);
	if (waitedMs > Math.max(...waits))
		return finding(
			checks.cancel,
			[seen, "it looks as if the model went on for nobody"],
			cancelFix,
		);
	if (waitedMs > Math.min(...waits))
		return unknown(
			checks.cancel,
			seen,
			"that is neither as long as what was left to do nor as short as usual",
		);
	return ok(
		checks.cancel,
		seen,
		"so it was stopped, or Ollama makes several replies at once (OLLAMA_NUM_PARALLEL): from here the two look the same",
	);
}

const boundsMs = [0, 1, 3, 10, 30, 100, 300, 1_000, Number.POSITIVE_INFINITY];

/** How many gaps were how long, from the shortest there is to the longest. */
export function countGaps(gapsMs: readonly number[]): HistogramBin[] {
	const bins = boundsMs.slice(1).map((toMs, i) => {
		const fromMs = boundsMs[i] ?? 0;
		const count = gapsMs.filter((gap) => gap >= fromMs && gap < toMs).length;
		return { fromMs, toMs, count };
	});
	const first = bins.findIndex(({ count }) => count > 0);
	const last = bins.findLastIndex(({ count }) => count > 0);
	return first === -1 ? [] : bins.slice(first, last + 1);
}

/** The same as bars of characters, a line each. */
export function drawGaps(gapsMs: readonly number[]): string[] {
	const bins = countGaps(gapsMs);
	const most = Math.max(1, ...bins.map(({ count }) => count));
	return bins.map((bin) => {
		const bar = "█".repeat(Math.ceil((bin.count / most) * 40));
		return `${formatRange(bin).padStart(16)} ${String(bin.count).padStart(4)} ${bar}`.trimEnd();
	});
}

function formatRange({ fromMs, toMs }: HistogramBin): string {
	return Number.isFinite(toMs)
		? `${fromMs}–${toMs} ms`
		: `${fromMs} ms and more`;
}

export function formatMs(ms: number): string {
	if (ms < 10 && !Number.isInteger(ms)) return `${ms.toFixed(1)} ms`;
	if (ms < 1_000) return `${Math.round(ms)} ms`;
	return `${Number((ms / 1_000).toFixed(1))} s`;
}

import { codeOf } from "../net/errorCode.ts";
import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import {
	ask,
	maxSilenceMs,
	readArrivals,
	readWhole,
	type Timings,
} from "./arrivals.ts";
import { type Caller, isReply, type NoReply, type Reply } from "./caller.ts";
import { checks, finding, ok, unknown } from "./checks.ts";
import { formatMs } from "./gaps.ts";

/** Long enough that leaving it early makes a difference, short enough to end by itself. */
const leftTokens = 400;
const afterLeavingMs = 5_000;
const maxNextStreamMs = 60_000;

export async function checkLeaving(
	caller: Caller,
	key: string,
	{ model, spanMs, tokens }: Timings,
): Promise<Result[]> {
	const both = (reason: string) =>
		[checks.afterLeaving, checks.cancel].map((check) => unknown(check, reason));
	// Without a key, so that any key can be probed with: a refusal is an answer.
	const call = () => caller.call({ method: "GET", path: "/api/version" });
	const before = await call();
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

	const answer = await call();
	const results = [
		judgeAnswer(before, answer, performance.now() - leftAt, seen),
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

/** An answer is what this call got before: anything else may be a proxy's, in place of a gate that is gone. */
function judgeAnswer(
	before: Reply | NoReply,
	answer: Reply | NoReply,
	answeredMs: number,
	seen: number,
): Result {
	const check = checks.afterLeaving;
	const fix = "On the server: journalctl -u llamagate -n 50";
	if (!isReply(answer))
		return finding(
			check,
			[`the next call was not answered (${answer.code})`],
			fix,
		);
	const { status } = answer;
	const wanted = isReply(before) ? before.status : undefined;
	if (status !== wanted || status >= 500)
		return finding(
			check,
			[
				`the next call was answered with ${status}; before the stream ${wanted === undefined ? "it was not answered" : `with ${wanted}`}`,
			],
			fix,
		);
	return answeredMs < afterLeavingMs
		? ok(
				check,
				`left after ${seen} tokens; the next call was answered after ${formatMs(answeredMs)}, with ${status} as before`,
			)
		: finding(
				check,
				[`the next call was answered only after ${formatMs(answeredMs)}`],
				fix,
			);
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

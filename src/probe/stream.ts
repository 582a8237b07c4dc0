import type { Result } from "../report/result.ts";
import { excerpt } from "../visible.ts";
import {
	ask,
	askedTokens,
	fastTokenMs,
	maxSilenceMs,
	readWhole,
	type Timings,
} from "./arrivals.ts";
import {
	type Caller,
	isReply,
	type NoReply,
	type OpenReply,
	readBody,
	readError,
} from "./caller.ts";
import { checks, finding, ok, unknown } from "./checks.ts";
import { countGaps, formatMs, formatRange } from "./gaps.ts";
import { checkLeaving } from "./leaving.ts";

const maxModels = 3;
const maxRefusalBytes = 64 * 2 ** 10;
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

import type { Outcome, UsageRecord } from "../ledger/record.ts";
import type { Exchange } from "./exchange.ts";
import { userOf } from "./user.ts";

/**
 * What a finished exchange cost; `undefined` where nobody is charged: it is none
 * of inference, or no key was known.
 *
 * Ollama tells its times at the end of its own routes' replies. For the others,
 * and for a stream that was left or cut, the GPU counts as busy from the
 * dispatch to the end of Ollama's reply, whenever its client has that, less the
 * load where that is known. Where it tells no count of a stream's tokens, as in
 * OpenAI's without `include_usage` and in what broke off, those that passed are
 * charged, one for each event or line of text; of the prompt nobody knows them.
 * Hosts that failed it worked for it too.
 */
export function usageRecordOf(
	exchange: Exchange,
	outcome: Outcome,
): UsageRecord | undefined {
	const { route, credential, usage } = exchange;
	if (route?.scope !== "infer" || credential === undefined) return undefined;
	const { id, by } = userOf(exchange);
	return {
		time: Date.now(),
		user: id,
		userBy: by,
		key: credential.key.label ?? credential.key.name,
		node: exchange.node?.name || null,
		model: usage?.model ?? null,
		route: route.id,
		outcome,
		requests: 1,
		tokensIn: usage?.tokensIn ?? 0,
		tokensOut: usage?.tokensOut ?? exchange.reply?.untoldTokens() ?? 0,
		gpuMs: Math.round(gpuMsOf(exchange)),
		loadMs: Math.round(usage?.loadMs ?? 0),
		queueMs: Math.round(exchange.queueMs ?? 0),
	};
}

/** How long the GPU worked for it, in milliseconds. */
function gpuMsOf({
	usage,
	dispatchedAtMs,
	repliedAtMs = performance.now(),
	lostMs,
}: Exchange): number {
	if (usage?.promptMs !== undefined || usage?.evalMs !== undefined)
		return lostMs + (usage.promptMs ?? 0) + (usage.evalMs ?? 0);
	if (dispatchedAtMs === undefined) return lostMs;
	const tookMs = repliedAtMs - dispatchedAtMs;
	return lostMs + Math.max(0, tookMs - (usage?.loadMs ?? 0));
}

import type { Budget, Standing } from "../ledger/budgets.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";

/**
 * Step 6a: what is left of the key's budget. A request of inference that goes on
 * has its part of it reserved; one of a budget that is used up is refused, or
 * waits with those of class `batch`.
 */
export function checkBudget(
	{ budgets, settings, log, raise }: GateState,
	exchange: Exchange,
): Refusal | undefined {
	const { name, budget } = exchange.knownCredential.key;
	if (budget === undefined || exchange.route?.scope !== "infer")
		return undefined;
	const nowMs = Date.now();
	const { kind, isBlind, isLow, isNews, standing } = budgets.decide(
		name,
		budget,
		nowMs,
		// Where gates share budgets it has one already.
		exchange.reservation,
	);
	if (isNews) {
		raise(
			"budget",
			kind === "exhausted"
				? `the budget of the key "${name}" is used up; it begins anew at ${new Date(standing.resetsAtMs).toISOString()}`
				: `four fifths of the budget of the key "${name}" are used`,
		);
		log.warn(
			{
				event: kind === "exhausted" ? "budget_exhausted" : "budget_low",
				key: name,
				...factsOf(standing),
			},
			kind === "exhausted"
				? "the budget of a key is used up"
				: "four fifths of the budget of a key are used",
		);
	}
	if (isLow)
		exchange.replyHeaders.push(
			"x-llamagate-budget-remaining",
			remaining(standing),
		);
	if (kind === "exhausted" && budget.then === "refuse")
		return usedUp(name, budget, standing, nowMs);
	if (isBlind && settings.budgets.withoutLedger === "refuse")
		return {
			status: 503,
			reason: "budget_unknown",
			message: `no ledger tells what the key "${name}" has used of its budget; try again`,
			headers: ["retry-after", "5"],
		};
	exchange.isDemoted = isBlind || kind === "exhausted";
	exchange.reservation ??= budgets.reserve(name, budget, nowMs);
	return undefined;
}

function usedUp(
	key: string,
	budget: Budget,
	standing: Standing,
	nowMs: number,
): Refusal {
	const { used, limits, resetsAtMs } = standing;
	const seconds = (ms: number) => Math.floor(ms / 1000);
	const parts = [
		limits.gpuMs !== undefined &&
			used.gpuMs >= limits.gpuMs &&
			`${seconds(used.gpuMs)} of ${seconds(limits.gpuMs)} s of the GPU`,
		limits.tokens !== undefined &&
			used.tokens >= limits.tokens &&
			`${Math.floor(used.tokens)} of ${limits.tokens} tokens`,
		limits.requests !== undefined &&
			used.requests >= limits.requests &&
			`${used.requests} of ${limits.requests} requests`,
	].filter((part) => part !== false);
	return {
		status: 429,
		reason: "budget_exceeded",
		code: "budget_exceeded",
		message: `the key "${key}" has used up its budget: ${parts.join(", ")} a ${budget.per}; it begins anew at ${new Date(resetsAtMs).toISOString()}`,
		headers: [
			"retry-after",
			String(Math.max(1, Math.ceil((resetsAtMs - nowMs) / 1000))),
			// Or a client's library tries again, and again.
			"x-should-retry",
			"false",
		],
	};
}

/** `gpu=1440s, tokens=12000, requests=4` */
function remaining({ used, limits }: Standing): string {
	const left = (limit: number, of: number) =>
		String(Math.max(0, Math.floor(limit - of)));
	const { gpuMs, tokens, requests } = limits;
	return [
		gpuMs !== undefined && `gpu=${left(gpuMs / 1000, used.gpuMs / 1000)}s`,
		tokens !== undefined && `tokens=${left(tokens, used.tokens)}`,
		requests !== undefined && `requests=${left(requests, used.requests)}`,
	]
		.filter((part) => part !== false)
		.join(", ");
}

function factsOf({ used, limits, resetsAtMs }: Standing) {
	return {
		used: {
			gpuMs: Math.round(used.gpuMs),
			tokens: Math.round(used.tokens),
			requests: used.requests,
		},
		limits,
		resets: new Date(resetsAtMs).toISOString(),
	};
}

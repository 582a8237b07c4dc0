import {
	type Budgets,
	type Charge,
	type Cost,
	type Decision,
	isLow,
	type Reservation,
	type Standing,
} from "../ledger/budgets.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";

/** What one of the budgets says of a request. */
interface Judgement extends Decision {
	readonly charge: Charge;
}

/**
 * Step 6a: what is left of the key's budget, and of its group's. A request of
 * inference that goes on has its part of each reserved; one of a budget that is
 * used up is refused, or waits with those of class `batch`.
 */
export function checkBudget(
	state: GateState,
	exchange: Exchange,
): Refusal | undefined {
	const { budgets, settings } = state;
	const { name, charges } = exchange.knownCredential.key;
	if (charges.length === 0 || exchange.route?.scope !== "infer")
		return undefined;
	const nowMs = Date.now();
	const judged = charges.map((charge): Judgement => {
		const { account, budget } = charge;
		// Where gates share budgets it has one already.
		const held = exchange.reservations.find((one) => one.account === account);
		return { ...budgets.decide(account, budget, nowMs, held), charge };
	});
	for (const one of judged) if (one.isNews) tell(state, name, one);
	const isUsedUp = ({ kind }: Judgement) => kind === "exhausted";
	const [refusing] = judged
		.filter((one) => isUsedUp(one) && one.charge.budget.then === "refuse")
		.sort((a, b) => b.standing.resetsAtMs - a.standing.resetsAtMs);
	if (refusing !== undefined) {
		sayWhatIsLeft(
			exchange,
			judged.map(({ standing }) => standing),
		);
		return usedUp(name, refusing, nowMs);
	}
	const blind = judged.find(({ isBlind }) => isBlind);
	if (blind !== undefined && settings.budgets.withoutLedger === "refuse")
		return {
			status: 503,
			reason: "budget_unknown",
			message: `no ledger tells what ${whose(name, blind.charge)} has used of its budget; try again`,
			headers: ["retry-after", "5"],
		};
	exchange.isDemoted = blind !== undefined || judged.some(isUsedUp);
	if (exchange.reservations.length === 0)
		exchange.reservations = reserveAll(budgets, charges, nowMs);
	// What is left behind this one, which the client is about to use.
	sayWhatIsLeft(
		exchange,
		charges.map(({ account, budget }, index) => {
			const reservation = exchange.reservations[index];
			return budgets.look(account, budget, nowMs, reservation).standing;
		}),
	);
	return undefined;
}

function sayWhatIsLeft(
	{ replyHeaders }: Exchange,
	standings: readonly Standing[],
): void {
	if (standings.some(isLow))
		replyHeaders.push("x-llamagate-budget-remaining", remaining(standings));
}

/** Step 8a: charges what a request cost that has ended, and tells of a budget that it has used up, or nearly. */
export function settleBudgets(
	state: GateState,
	{ reservations, credential }: Exchange,
	cost: Cost,
	endedAtMs: number,
): void {
	const { budgets, rules } = state;
	const name = credential?.key.name ?? "";
	for (const reservation of reservations) reservation.settle(cost, endedAtMs);
	for (const charge of rules.keyring.chargesOf(name)) {
		const { account, budget } = charge;
		// A reload may have given its key a budget while it ran.
		if (!reservations.some((one) => one.account === account))
			budgets.charge(account, budget, cost, endedAtMs);
		const decision = budgets.decide(account, budget, endedAtMs);
		if (decision.isNews) tell(state, name, { ...decision, charge });
	}
}

/** Has a request take its part of each budget. */
export function reserveAll(
	budgets: Budgets,
	charges: readonly Charge[],
	nowMs: number,
): Reservation[] {
	return charges.map(({ account, budget }) =>
		budgets.reserve(account, budget, nowMs),
	);
}

/** Whose budget it is, as a sentence names it. */
function whose(key: string, { group }: Charge): string {
	return group === undefined ? `the key "${key}"` : `the group "${group}"`;
}

function tell(
	{ log, raise }: GateState,
	key: string,
	{ kind, standing, charge }: Judgement,
): void {
	const who = whose(key, charge);
	const what = charge.group === undefined ? "a key" : "a group";
	const isUsedUp = kind === "exhausted";
	raise(
		"budget",
		isUsedUp
			? `the budget of ${who} is used up; it begins anew at ${new Date(standing.resetsAtMs).toISOString()}`
			: `four fifths of the budget of ${who} are used`,
	);
	log.warn(
		{
			event: isUsedUp ? "budget_exhausted" : "budget_low",
			key,
			...(charge.group !== undefined && { group: charge.group }),
			...factsOf(standing),
		},
		isUsedUp
			? `the budget of ${what} is used up`
			: `four fifths of the budget of ${what} are used`,
	);
}

function usedUp(
	key: string,
	{ standing, charge }: Judgement,
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
		message: `${whose(key, charge)} has used up its budget: ${parts.join(", ")} a ${charge.budget.per}; it begins anew at ${new Date(resetsAtMs).toISOString()}`,
		headers: [
			"retry-after",
			String(Math.max(1, Math.ceil((resetsAtMs - nowMs) / 1000))),
			// Or a client's library tries again, and again.
			"x-should-retry",
			"false",
		],
	};
}

/** `gpu=1440s, tokens=12000, requests=4`: of each the least that is left of any budget. */
function remaining(standings: readonly Standing[]): string {
	const shown = [
		["gpuMs", 1000, (left: number) => `gpu=${left}s`],
		["tokens", 1, (left: number) => `tokens=${left}`],
		["requests", 1, (left: number) => `requests=${left}`],
	] as const;
	return shown
		.flatMap(([name, unit, show]) => {
			const left = standings.flatMap(({ used, limits }) => {
				const limit = limits[name];
				return limit === undefined ? [] : [(limit - used[name]) / unit];
			});
			return left.length === 0
				? []
				: [show(Math.max(0, Math.floor(Math.min(...left))))];
		})
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

import type { BudgetWindow, Period } from "./budgetWindow.ts";
import type { ClockWatch } from "./clockWatch.ts";

/** What a budget counts; of several the first that is used up ends it. */
export interface Cost {
	readonly gpuMs: number;
	/** Of the prompt and generated. */
	readonly tokens: number;
	readonly requests: number;
}

/** What a key may use in a time. */
export interface Budget {
	readonly limits: Partial<Cost>;
	readonly per: Period;
	readonly timezone: string;
	/** What becomes of requests once it is used up. */
	readonly then: "refuse" | "batch";
}

/** A budget that a request is charged to, under its own name among all of them. */
export interface Charge {
	/** The key's name, or `group:NAME`. */
	readonly account: string;
	readonly group: string | undefined;
	readonly budget: Budget;
}

export const measures = ["gpuMs", "tokens", "requests"] as const;

/** From which part on the owner is told, and a client what is left. */
export const noticeShare = 0.8;

/** How much of its budget a key has used. */
export interface Standing {
	/** What is used of each limit, what runs included by its estimate. */
	readonly used: Cost;
	readonly limits: Partial<Cost>;
	/** When all of it is there again; epoch milliseconds. */
	readonly resetsAtMs: number;
}

/** What one gate has used of a budget in a window. */
export interface OwnUse {
	readonly used: Cost;
	readonly window: BudgetWindow;
}

/** A running request's part of a budget. */
export interface Reservation {
	/** As its charge has it. */
	readonly account: string;
	/** What this process had used before it. */
	readonly before: Cost;
	/** What it has used with it, in the window of which all three sums are. */
	readonly own: OwnUse;
	/** What other gates had used before it, where it was told with it. */
	others?: Cost;
	/** Charges what it cost in place of the estimate, as the budget is then; once, when it has ended. */
	settle(cost: Cost, nowMs: number): void;
}

export type Sum = { -readonly [K in keyof Cost]: number };
export const nothing = (): Sum => ({ gpuMs: 0, tokens: 0, requests: 0 });

export interface Account {
	budget: Budget;
	window: BudgetWindow;
	/** From when on it counts by itself; epoch milliseconds, by the clock as it is now. */
	countsFromMs: number;
	readonly watch: ClockWatch;
	/** What ended in this window since it counts. */
	readonly used: Sum;
	/** What of that the ledger tells too, as it ended before `countsFromMs`. */
	toldTwice: Cost;
	/** What was used besides before `countsFromMs`, as the ledger told it. */
	restored: Cost;
	/** What other gates have used, those before this process among them, as far as is known. */
	others: Cost;
	/** What runs is expected to cost. */
	readonly reserved: Sum;
	/** Of the key's latest requests. */
	readonly mean: Sum;
	/** How many have gone into it. */
	meanOf: number;
	/** The ledger has told. */
	isRestored: boolean;
	/** What gates share had all of them in it when it told. */
	isHeard: boolean;
	told: Told;
	/** The rules in force have no such budget, so that what is used is not counted here. */
	isAway: boolean;
}

/** What is told of a budget, each once in its window unless it is raised. */
export type Told = "nothing" | "low" | "exhausted";
const rank = { nothing: 0, low: 1, exhausted: 2 } as const;

/** What is to be told where a budget stands so. */
export function toldOf(standing: Standing): Told {
	const share = shareOf(standing);
	return share >= 1 ? "exhausted" : share >= noticeShare ? "low" : "nothing";
}

export function isMore(one: Told, than: Told): boolean {
	return rank[one] > rank[than];
}

export function hasSameLimits(one: Budget, other: Budget): boolean {
	return measures.every((name) => one.limits[name] === other.limits[name]);
}

/** A window of another kind has other use in it. */
export function isSameWindow(one: Budget, other: Budget): boolean {
	return one.per === other.per && one.timezone === other.timezone;
}

export function add(to: Sum, cost: Cost, times: number): void {
	for (const name of measures) to[name] += times * cost[name];
}

/** What of a cost is beyond another. */
export function beyond(cost: Cost, other: Cost): Cost {
	const rest = nothing();
	for (const name of measures)
		rest[name] = Math.max(0, cost[name] - other[name]);
	return rest;
}

/**
 * @param own what this process has used; all of it by default
 * @param others what other gates have used; what was told last by default
 */
export function standingOf(
	account: Account,
	own = ownOf(account),
	others = account.others,
): Standing {
	return {
		used: total(own, account.restored, others),
		limits: account.budget.limits,
		resetsAtMs: account.window.endMs,
	};
}

/** Whether its sums are still those of the account: its window may have ended while another gate was asked. */
export function isOfNow(
	{ window }: Account,
	reservation: Reservation | undefined,
): boolean {
	return reservation?.own.window === window;
}

/** @param reservation of the request that is judged, where it has one already */
export function standingBefore(
	account: Account,
	reservation?: Reservation,
): Standing {
	if (reservation === undefined || isOfNow(account, reservation))
		return standingOf(account, reservation?.before, reservation?.others);
	// Of the new window it has reserved its part too.
	const own = ownOf(account);
	add(own, reservation.own.used, -1);
	add(own, reservation.before, 1);
	return standingOf(account, own);
}

/** The largest part of a limit that is used; from 1 on the budget is used up. */
export function shareOf({ used, limits }: Standing): number {
	return Math.max(
		...measures.map((name) => {
			const limit = limits[name];
			return limit === undefined ? 0 : used[name] / limit;
		}),
	);
}

/** What a request has cost lately; before any has ended here, what they have cost elsewhere. */
export function meanCostOf({ mean, meanOf, restored, others }: Account): Cost {
	if (meanOf > 0) return mean;
	const elsewhere = total(nothing(), restored, others);
	const requests = Math.max(1, elsewhere.requests);
	return {
		gpuMs: elsewhere.gpuMs / requests,
		tokens: elsewhere.tokens / requests,
		requests: 1,
	};
}

/** Whether so much is used that a client is told what is left. */
export function isLow(standing: Standing): boolean {
	return shareOf(standing) >= noticeShare;
}

/** With what was used elsewhere: the ledger and the other gates may tell of the same. */
function total(own: Cost, restored: Cost, others: Cost): Cost {
	const sum = { ...own };
	for (const name of measures)
		sum[name] += Math.max(restored[name], others[name]);
	return sum;
}

export function ownOf({ used, reserved }: Account): Sum {
	const sum = { ...used };
	add(sum, reserved, 1);
	return sum;
}

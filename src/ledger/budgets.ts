import { type BudgetWindow, type Period, windowOf } from "./budgetWindow.ts";
import type { Amounts } from "./record.ts";

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
const noticeShare = 0.8;
/** How much the latest request counts in the mean of a key's requests, at least: of few, each counts as much. */
const recency = 0.2;

/** How much of its budget a key has used. */
export interface Standing {
	/** What is used of each limit, what runs included by its estimate. */
	readonly used: Cost;
	readonly limits: Partial<Cost>;
	/** When all of it is there again; epoch milliseconds. */
	readonly resetsAtMs: number;
}

/** What a budget says of a request, and what is to be told of it. */
export interface Decision {
	readonly kind: "granted" | "exhausted";
	/** The key's earlier use is not known, as no ledger has told. */
	readonly isBlind: boolean;
	readonly standing: Standing;
	/** The first of its window that is low, or exhausted. */
	readonly isNews: boolean;
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

/** A time of which the ledger is asked; epoch milliseconds. */
export interface Span {
	readonly sinceMs: number;
	/** The first moment that is not wanted. */
	readonly untilMs: number;
}

type Sum = { -readonly [K in keyof Cost]: number };
const nothing = (): Sum => ({ gpuMs: 0, tokens: 0, requests: 0 });

interface Account {
	budget: Budget;
	window: BudgetWindow;
	/** From when on it counts by itself; epoch milliseconds. */
	countsFromMs: number;
	/** What ended in this window since it counts. */
	readonly used: Sum;
	/** What was used before that, as the ledger told it. */
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
	told: "nothing" | "low" | "exhausted";
}

/**
 * The budgets of keys and of groups of keys, each an account under a name, decided
 * in memory; "key" means either here. Requests reserve what the key's latest
 * have cost, and are charged what they did when they end, in the window in which
 * they end: several at once go over by one request's cost each at the most.
 */
export class Budgets {
	readonly #accounts = new Map<string, Account>();
	/** Told of a key whose own use has changed by the end of a request. */
	onSettled: ((key: string) => void) | undefined;
	/** Called when the ledger is to be asked for something that was not wanted before. */
	onUnknown: (() => void) | undefined;

	/**
	 * What a key has used, before a request of it or behind one.
	 *
	 * @param reservation of a request that is to come, where it has one already
	 */
	decide(
		key: string,
		budget: Budget,
		nowMs: number,
		reservation?: Reservation,
	): Decision {
		const account = this.#accountOf(key, budget, nowMs);
		const standing = standingBefore(account, reservation);
		const share = shareOf(standing);
		const told =
			share >= 1 ? "exhausted" : share >= noticeShare ? "low" : "nothing";
		const isNews = rank[told] > rank[account.told];
		if (isNews) account.told = told;
		return {
			kind: share >= 1 ? "exhausted" : "granted",
			isBlind: isBlind(account),
			standing,
			isNews,
		};
	}

	/**
	 * The same, where nothing is asked of it, and nobody is told.
	 *
	 * @param reservation as of which; all that have come by default
	 */
	look(
		key: string,
		budget: Budget,
		nowMs: number,
		reservation?: Reservation,
	): { readonly standing: Standing; readonly isBlind: boolean } {
		const account = this.#accountOf(key, budget, nowMs);
		const asOf = isOfNow(account, reservation) ? reservation : undefined;
		return {
			standing: standingOf(account, asOf?.own.used, asOf?.others),
			isBlind: isBlind(account),
		};
	}

	/** Has a request that may run take its part. */
	reserve(key: string, budget: Budget, nowMs: number): Reservation {
		const account = this.#accountOf(key, budget, nowMs);
		const before = ownOf(account);
		const estimate = { ...meanCostOf(account), requests: 1 };
		add(account.reserved, estimate, 1);
		let isSettled = false;
		return {
			account: key,
			before,
			own: { used: ownOf(account), window: account.window },
			settle: (cost, endedAtMs) => {
				if (isSettled) return;
				isSettled = true;
				add(account.reserved, estimate, -1);
				// An edit of the budget may have put another in its place.
				this.#settle(key, this.#accounts.get(key) ?? account, cost, endedAtMs);
			},
		};
	}

	/** Charges what a request cost that has reserved nothing, as its key had no such budget when it began. */
	charge(key: string, budget: Budget, cost: Cost, endedAtMs: number): void {
		const account = this.#accountOf(key, budget, endedAtMs);
		this.#settle(key, account, cost, endedAtMs);
	}

	#settle(key: string, account: Account, cost: Cost, endedAtMs: number): void {
		this.#roll(account, endedAtMs);
		add(account.used, cost, 1);
		if (cost.requests > 0) {
			account.meanOf += 1;
			const weight = Math.max(recency, 1 / account.meanOf);
			for (const name of measures)
				account.mean[name] += weight * (cost[name] - account.mean[name]);
		}
		this.onSettled?.(key);
	}

	/** What this process has used of a key's budget; `undefined` for a key that has asked for nothing. */
	own(key: string, nowMs: number): OwnUse | undefined {
		const account = this.#accounts.get(key);
		if (account === undefined) return undefined;
		this.#roll(account, nowMs);
		return { used: ownOf(account), window: account.window };
	}

	/** Keys that have asked for something. */
	get keys(): Iterable<string> {
		return this.#accounts.keys();
	}

	/** Takes over what other gates have used in a window. What was told of an older one is dropped. */
	hear(key: string, { startMs, endMs }: BudgetWindow, others: Cost): void {
		const account = this.#accounts.get(key);
		if (account?.window.startMs === startMs && account.window.endMs === endMs)
			account.others = others;
	}

	/** Keys of which the ledger has to tell what was used, and when: before they were counted here. */
	unrestored(
		budgets: ReadonlyMap<string, { readonly budget: Budget }>,
		nowMs: number,
	): Map<string, Span> {
		const wanted = new Map<string, Span>();
		for (const [key, { budget }] of budgets) {
			const account = this.#accountOf(key, budget, nowMs);
			if (!account.isRestored)
				wanted.set(key, {
					sinceMs: account.window.startMs,
					untilMs: account.countsFromMs,
				});
		}
		return wanted;
	}

	/**
	 * Adds what a key used before it was counted here, as the ledger told it.
	 *
	 * @param span as `unrestored` said; what was told of another is dropped
	 */
	restore(key: string, span: Span, cost: Cost, nowMs: number): void {
		const account = this.#accounts.get(key);
		if (account === undefined) return;
		this.#roll(account, nowMs);
		const { isRestored, window, countsFromMs } = account;
		if (isRestored || window.startMs !== span.sinceMs) return;
		if (countsFromMs !== span.untilMs) return;
		account.restored = cost;
		account.isRestored = true;
	}

	#accountOf(key: string, budget: Budget, nowMs: number): Account {
		let account = this.#accounts.get(key);
		if (account === undefined || !isSameWindow(account.budget, budget)) {
			account = {
				budget,
				window: { startMs: 0, endMs: Number.NEGATIVE_INFINITY },
				countsFromMs: nowMs,
				used: nothing(),
				restored: nothing(),
				others: nothing(),
				// What runs goes on to be the key's.
				reserved: account?.reserved ?? nothing(),
				mean: account?.mean ?? nothing(),
				meanOf: account?.meanOf ?? 0,
				isRestored: false,
				told: "nothing",
			};
			this.#accounts.set(key, account);
		}
		account.budget = budget;
		this.#roll(account, nowMs);
		return account;
	}

	/** Begins a new window where the old one is over. */
	#roll(account: Account, nowMs: number): void {
		const { window, budget } = account;
		if (nowMs < window.endMs && nowMs >= window.startMs) return;
		// The clock was put back: what was used in that window is not here any more.
		if (nowMs < window.startMs) account.countsFromMs = nowMs;
		account.window = windowOf(budget.per, budget.timezone, nowMs);
		Object.assign(account.used, nothing());
		account.restored = nothing();
		account.others = nothing();
		account.told = "nothing";
		account.isRestored = account.window.startMs >= account.countsFromMs;
		if (!account.isRestored) this.onUnknown?.();
	}
}

const rank = { nothing: 0, low: 1, exhausted: 2 } as const;

/** A window of another kind has other use in it. */
function isSameWindow(one: Budget, other: Budget): boolean {
	return one.per === other.per && one.timezone === other.timezone;
}

function add(to: Sum, cost: Cost, times: number): void {
	for (const name of measures) to[name] += times * cost[name];
}

/**
 * @param own what this process has used; all of it by default
 * @param others what other gates have used; what was told last by default
 */
function standingOf(
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
function isOfNow(
	{ window }: Account,
	reservation: Reservation | undefined,
): boolean {
	return reservation?.own.window === window;
}

/** @param reservation of the request that is judged, where it has one already */
function standingBefore(account: Account, reservation?: Reservation): Standing {
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
function meanCostOf({ mean, meanOf, restored, others }: Account): Cost {
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

function ownOf({ used, reserved }: Account): Sum {
	const sum = { ...used };
	add(sum, reserved, 1);
	return sum;
}

/** Neither a ledger nor another gate has told of earlier use. */
function isBlind({ isRestored, others }: Account): boolean {
	return !isRestored && measures.every((name) => others[name] === 0);
}

/** What of a record or a sum a budget counts. A request that was refused costs nothing. */
export function costOf(amounts: Amounts & { readonly refused: number }): Cost {
	return {
		gpuMs: amounts.gpuMs,
		tokens: amounts.tokensIn + amounts.tokensOut,
		requests: amounts.requests - amounts.refused,
	};
}

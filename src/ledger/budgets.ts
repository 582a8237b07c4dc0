import {
	type Account,
	add,
	type Budget,
	beyond,
	type Cost,
	hasSameLimits,
	isMore,
	isOfNow,
	isSameWindow,
	meanCostOf,
	measures,
	nothing,
	type OwnUse,
	ownOf,
	type Reservation,
	type Standing,
	standingBefore,
	standingOf,
	toldOf,
} from "./budgetAccount.ts";
import { type BudgetWindow, windowOf } from "./budgetWindow.ts";
import { ClockWatch, steadyClocks } from "./clockWatch.ts";
import type { Amounts } from "./record.ts";

export {
	type Budget,
	type Charge,
	type Cost,
	isLow,
	measures,
	type OwnUse,
	type Reservation,
	type Standing,
	shareOf,
} from "./budgetAccount.ts";

/** How much the latest request counts in the mean of a key's requests, at least: of few, each counts as much. */
const recency = 0.2;

/** What a budget says of a request, and what is to be told of it. */
export interface Decision {
	readonly kind: "granted" | "exhausted";
	/** The key's earlier use is not known, as nobody has told who knows. */
	readonly isBlind: boolean;
	readonly standing: Standing;
	/** The first of its window, or since the budget was raised, that is low, or exhausted. */
	readonly isNews: boolean;
}

/** A time of which the ledger is asked; epoch milliseconds. */
export interface Span {
	readonly sinceMs: number;
	/** The first moment that is not wanted. */
	readonly untilMs: number;
}

/**
 * The budgets of keys and of groups of keys, each an account under a name, decided
 * in memory; "key" means either here. Requests reserve what the key's latest
 * have cost, and are charged what they did when they end, in the window in which
 * they end: several at once go over by one request's cost each at the most.
 */
export class Budgets {
	readonly #accounts = new Map<string, Account>();
	readonly #clocks: typeof steadyClocks;
	/** A ledger takes what is used here, and is asked for what was used before. */
	hasLedger = false;
	/** Since when what gates share has held what each has used; epoch milliseconds. */
	sharedSinceMs = Number.POSITIVE_INFINITY;
	/** Told of a key whose own use has changed by the end of a request. */
	onSettled: ((key: string) => void) | undefined;
	/** Called when the ledger is to be asked for something that was not wanted before. */
	onUnknown: (() => void) | undefined;

	/** @param clocks by which it is found out that the wall clock was set */
	constructor(clocks = steadyClocks) {
		this.#clocks = clocks;
	}

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
		const told = toldOf(standing);
		const isNews = isMore(told, account.told);
		if (isNews) account.told = told;
		return {
			kind: told === "exhausted" ? "exhausted" : "granted",
			isBlind: this.#isBlind(account),
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
			isBlind: this.#isBlind(account),
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
		if (account?.window.startMs !== startMs || account.window.endMs !== endMs)
			return;
		account.others = others;
		if (this.sharedSinceMs <= startMs) account.isHeard = true;
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
	 * Follows a reload. What is used while a budget is taken away is not counted here:
	 * of one that comes back the ledger is to tell anew.
	 *
	 * @param budgets those in force from now on
	 */
	follow(budgets: ReadonlyMap<string, unknown>, nowMs: number): void {
		for (const [key, account] of this.#accounts) {
			const wasAway = account.isAway;
			account.isAway = !budgets.has(key);
			if (wasAway && !account.isAway) this.#countAnew(account, nowMs);
		}
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
		account.restored = beyond(cost, account.toldTwice);
		account.isRestored = true;
	}

	/**
	 * Nobody has told of earlier use who knows. A ledger that is to tell is waited for:
	 * what gates share says after a loss what they use since, and that only.
	 */
	#isBlind({ isRestored, isHeard }: Account): boolean {
		return !isRestored && (this.hasLedger || !isHeard);
	}

	#accountOf(key: string, budget: Budget, nowMs: number): Account {
		let account = this.#accounts.get(key);
		if (account === undefined || !isSameWindow(account.budget, budget)) {
			account = {
				budget,
				window: { startMs: 0, endMs: Number.NEGATIVE_INFINITY },
				countsFromMs: nowMs,
				watch: new ClockWatch(this.#clocks, nowMs),
				used: nothing(),
				toldTwice: nothing(),
				restored: nothing(),
				others: nothing(),
				// What runs goes on to be the key's.
				reserved: account?.reserved ?? nothing(),
				mean: account?.mean ?? nothing(),
				meanOf: account?.meanOf ?? 0,
				isRestored: false,
				isHeard: false,
				told: "nothing",
				isAway: false,
			};
			this.#accounts.set(key, account);
		}
		const isEdited = !hasSameLimits(account.budget, budget);
		account.budget = budget;
		this.#roll(account, nowMs);
		if (isEdited) {
			const told = toldOf(standingOf(account));
			if (isMore(account.told, told)) account.told = told;
		}
		return account;
	}

	/** Goes on with what it has used itself, which other gates know, and asks for the rest. */
	#countAnew(account: Account, nowMs: number): void {
		this.#roll(account, nowMs);
		account.countsFromMs = nowMs;
		account.toldTwice = { ...account.used };
		account.isHeard = false;
		account.isRestored = false;
		this.onUnknown?.();
	}

	/** Begins a new window where the old one is over, or has to be asked for anew. */
	#roll(account: Account, nowMs: number): void {
		const { window, budget, watch } = account;
		const setByMs = watch.setByMs(nowMs);
		account.countsFromMs += setByMs;
		const isOver = nowMs >= window.endMs || nowMs < window.startMs;
		if (!isOver) {
			if (setByMs <= 0 || window.startMs >= account.countsFromMs) return;
			// More lies before this process than was known. What is used here lies there
			// by the old clock, so a ledger that is asked tells of it too.
			if (this.hasLedger) account.countsFromMs = nowMs;
			else {
				account.isRestored = false;
				return;
			}
		}
		// The clock was put back: what was used in that window is not here any more.
		if (nowMs < window.startMs) account.countsFromMs = nowMs;
		account.window = windowOf(budget.per, budget.timezone, nowMs);
		Object.assign(account.used, nothing());
		account.toldTwice = nothing();
		account.restored = nothing();
		account.others = nothing();
		if (isOver) account.told = "nothing";
		account.isHeard = false;
		account.isRestored = account.window.startMs >= account.countsFromMs;
		if (!account.isRestored) this.onUnknown?.();
	}
}

/** What of a record or a sum a budget counts. A request that was refused costs nothing. */
export function costOf(amounts: Amounts & { readonly refused: number }): Cost {
	return {
		gpuMs: amounts.gpuMs,
		tokens: amounts.tokensIn + amounts.tokensOut,
		requests: amounts.requests - amounts.refused,
	};
}

import {
	type Budgets,
	type Cost,
	measures,
	type OwnUse,
	type Reservation,
} from "../../ledger/budgets.ts";
import type { Names } from "../../valkey/names.ts";

/** How long the ends of requests wait for others to go with them. */
const togetherMs = 50;
/** Keys that one script takes. */
const maxAtOnce = 200;
/** How long a window is kept past its end: clocks differ. */
const keptPastEndMs = 3_600_000;

/** What is in Valkey of a budget. */
export interface Entry {
	readonly key: string;
	/** Three sums. */
	readonly value: string;
	readonly keptMs: number;
}

export interface BudgetTelling {
	/** Writes what this gate has used. Resolves with whether it is written. */
	put(entries: readonly Entry[]): Promise<boolean>;
	/** Raises what gates that have ended used to what is known of it here, where it is lost. */
	remember(entries: readonly Entry[]): void;
}

/**
 * Budgets of all gates. Each says what it has used in a window, its running
 * requests by their estimates, never that it has used more; Valkey adds up.
 */
export class SharedBudgets {
	readonly #budgets: Budgets;
	readonly #names: Names;
	readonly #tell: BudgetTelling;
	/** Keys whose use has changed and is not written. */
	#changed = new Set<string>();
	/** By key: what gates that have ended used in its window. */
	readonly #ended = new Map<string, { use: OwnUse; sums: Cost }>();
	#timer: NodeJS.Timeout | undefined;

	constructor(budgets: Budgets, names: Names, tell: BudgetTelling) {
		this.#budgets = budgets;
		this.#names = names;
		this.#tell = tell;
		budgets.onSettled = (key) => this.#writeSoon(key);
	}

	entryOf(key: string, { used, window }: OwnUse): Entry {
		return {
			// Another window of the same key is another count.
			key: this.#names.of("budget", `${window.startMs} ${window.endMs} ${key}`),
			value: textOf(used),
			keptMs: Math.max(0, window.endMs - Date.now()) + keptPastEndMs,
		};
	}

	/**
	 * What Valkey has added up with a request. The request is judged by these sums,
	 * whatever answers to later ones are read before it is: else each of two gates
	 * refuses the last place for the other's sake.
	 *
	 * @param sums of all gates, then of those that have ended
	 */
	told(reservation: Reservation, sums: readonly number[]): void {
		const { account: key, own } = reservation;
		const all = costOf(sums);
		const others = { ...all };
		for (const name of measures)
			others[name] = Math.max(0, all[name] - own.used[name]);
		reservation.others = others;
		this.#budgets.hear(key, own.window, others);
		this.#ended.set(key, { use: own, sums: costOf(sums.slice(3)) });
	}

	/** Valkey is back, and may have lost them. */
	back(): void {
		for (const key of this.#budgets.keys) this.#writeSoon(key);
		const nowMs = Date.now();
		const entries = [...this.#ended].flatMap(([key, { use, sums }]) =>
			use.window.endMs > nowMs
				? [{ ...this.entryOf(key, use), value: textOf(sums) }]
				: [],
		);
		for (let from = 0; from < entries.length; from += maxAtOnce)
			this.#tell.remember(entries.slice(from, from + maxAtOnce));
	}

	/** Writes what is left to write. */
	async close(): Promise<void> {
		clearTimeout(this.#timer);
		await this.#writeNow();
	}

	#writeSoon(key: string): void {
		this.#changed.add(key);
		this.#timer ??= setTimeout(() => {
			this.#timer = undefined;
			void this.#writeNow();
		}, togetherMs).unref();
	}

	async #writeNow(): Promise<void> {
		const keys = [...this.#changed];
		this.#changed.clear();
		for (let from = 0; from < keys.length; from += maxAtOnce) {
			const nowMs = Date.now();
			const some = keys.slice(from, from + maxAtOnce);
			const entries = some.flatMap((key) => {
				const own = this.#budgets.own(key, nowMs);
				return own === undefined ? [] : [this.entryOf(key, own)];
			});
			// Where it is not written, all is written anew once Valkey is back.
			if (entries.length > 0) await this.#tell.put(entries);
		}
	}
}

function costOf([gpuMs = 0, tokens = 0, requests = 0]: readonly number[]): {
	-readonly [K in keyof Cost]: number;
} {
	return { gpuMs, tokens, requests };
}

function textOf(cost: Cost): string {
	return measures.map((name) => Math.max(0, Math.round(cost[name]))).join(" ");
}

import { askLedger } from "../ledger/ask.ts";
import {
	type Budgets,
	type Cost,
	costOf,
	measures,
	type Span,
} from "../ledger/budgets.ts";
import type { LedgerClient } from "../ledger/client.ts";
import type { Log } from "../log.ts";
import type { Rules } from "./rules.ts";

/** How long after a ledger did not tell it is asked again. */
const retryMs = 2_000;
/** How long a gate's start waits for the ledger. */
const startPatienceMs = 1_000;

/** Has budgets know what was used before they were counted here: before this process, or an edit of theirs. */
export interface Restoring {
	/** Asks for what is not known yet: of new keys, say. */
	look(): void;
	stop(): void;
}

/**
 * Asks the ledger what the keys with a budget have used already, and goes on to
 * ask until it has told.
 *
 * @param ledger by which this gate's records get there
 * @returns once it has told, or after a second
 */
export async function restoreBudgets(
	budgets: Budgets,
	rulesNow: () => Rules,
	log: Log,
	ledger: LedgerClient | undefined,
): Promise<Restoring> {
	let timer: NodeJS.Timeout | undefined;
	let isStopped = false;
	let isLooking = false;
	let isWantedAgain = false;
	let hasTold = false;
	const look = async (): Promise<void> => {
		isWantedAgain = isLooking;
		if (isLooking || isStopped) return;
		isLooking = true;
		clearTimeout(timer);
		let why: string | undefined;
		do {
			isWantedAgain = false;
			why = await ask(budgets, rulesNow(), ledger);
		} while (isWantedAgain && !isStopped);
		isLooking = false;
		if (why === undefined || isStopped) return;
		if (!hasTold)
			log.warn(
				{ event: "budgets_unknown", why },
				"what keys have used of their budgets is not known; until it is, they are served as budgets.withoutLedger says",
			);
		hasTold = true;
		timer = setTimeout(() => void look(), retryMs).unref();
	};
	budgets.hasLedger = ledger !== undefined;
	// Later: what has found it is in the middle of something.
	budgets.onUnknown = () => setImmediate(() => void look()).unref();
	await Promise.race([
		look(),
		new Promise((resolve) => setTimeout(resolve, startPatienceMs).unref()),
	]);
	return {
		look: () => void look(),
		stop() {
			isStopped = true;
			clearTimeout(timer);
		},
	};
}

/** @returns why not all of it is known, or `undefined` */
async function ask(
	budgets: Budgets,
	{ keyring, settings }: Rules,
	ledger: LedgerClient | undefined,
): Promise<string | undefined> {
	const wanted = [...budgets.unrestored(keyring.budgets, Date.now())];
	if (wanted.length === 0) return undefined;
	if (settings.ledger === undefined || ledger === undefined)
		return 'the configuration has no section "ledger"';
	const bySpan = Map.groupBy(wanted, ([, one]) => JSON.stringify(one));
	for (const asked of bySpan.values()) {
		const span = asked[0]?.[1] as Span;
		// Records get there a little later than they are counted.
		if (!(await ledger.delivered(span.untilMs, retryMs)))
			return "the ledger has not taken all that was used before";
		const rows = await askLedger(settings.ledger.socket, {
			...span,
			by: ["key"],
			// What runs at other gates is charged there.
			own: true,
		});
		if (typeof rows === "string") return rows;
		const costs = new Map(rows.map((row) => [row.key, costOf(row)]));
		for (const [account] of asked)
			budgets.restore(
				account,
				span,
				sumOf(keyring.budgets.get(account)?.keys ?? [], costs),
				Date.now(),
			);
	}
	return undefined;
}

/** Of those keys: a group has used what those have that are in it now. */
function sumOf(
	keys: readonly string[],
	costs: ReadonlyMap<string | null, Cost>,
): Cost {
	const sum = { gpuMs: 0, tokens: 0, requests: 0 };
	for (const key of keys)
		for (const name of measures) sum[name] += costs.get(key)?.[name] ?? 0;
	return sum;
}

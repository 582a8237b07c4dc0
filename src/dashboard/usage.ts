import { setTimeout as delay } from "node:timers/promises";
import { askLedger } from "../ledger/ask.ts";
import { windowOf } from "../ledger/budgetWindow.ts";
import type { UsageRow } from "../ledger/store.ts";
import type { Sources } from "./snapshot.ts";

/** Sums of a week are more work than a look at the gate, and change slowly. */
const freshMs = 15_000;
/** How long a look waits for the ledger: with the rest of the page people watch the gate. */
const patienceMs = 500;
/** For how long the last sums are shown while the ledger does not answer. */
const keptMs = 120_000;

/** Who used the GPU. */
export type Usage =
	| {
			readonly kind: "sums";
			readonly today: readonly UsageRow[];
			readonly week: readonly UsageRow[];
			/** Where the days begin. */
			readonly timezone: string;
	  }
	| { readonly kind: "none" }
	/** It was asked, and has yet to say something. */
	| { readonly kind: "awaited" }
	| { readonly kind: "unknown"; readonly why: string };

/** The ledger's sums, for looks that wait for no ledger for long. */
export class UsageWatch {
	readonly #sources: Sources;
	#last: Usage = { kind: "awaited" };
	#answeredAtMs = Number.NEGATIVE_INFINITY;
	#isAsking = false;
	#patience: Promise<unknown> = Promise.resolve();

	constructor(sources: Sources) {
		this.#sources = sources;
	}

	/**
	 * What the ledger said last, asked again where that is older than 15 s. After half
	 * a second without an answer it is what it said before, for two minutes at most.
	 * However long an answer takes, there is one question at a time. Never rejects.
	 */
	async look(): Promise<Usage> {
		const isFresh = performance.now() - this.#answeredAtMs < freshMs;
		if (!this.#isAsking && !isFresh)
			this.#patience = Promise.race([
				this.#ask(),
				delay(patienceMs, undefined, { ref: false }),
			]);
		await this.#patience;
		return performance.now() - this.#answeredAtMs < keptMs
			? this.#last
			: { kind: "awaited" };
	}

	async #ask(): Promise<void> {
		this.#isAsking = true;
		try {
			this.#last = await askUsage(this.#sources);
		} catch (error) {
			// The rest of the page is worth showing without it.
			this.#last = { kind: "unknown", why: String(error) };
		} finally {
			this.#answeredAtMs = performance.now();
			this.#isAsking = false;
		}
	}
}

async function askUsage({ ledgerSocket, people }: Sources): Promise<Usage> {
	if (ledgerSocket === undefined) return { kind: "none" };
	const timezone = zoneHere();
	const [today, week] = await Promise.all(
		(["day", "week"] as const).map((period) =>
			askLedger(ledgerSocket, {
				sinceMs: windowOf(period, timezone, Date.now()).startMs,
				by: ["user"],
			}),
		),
	);
	if (today === undefined || typeof today === "string")
		return { kind: "unknown", why: today ?? "" };
	if (week === undefined || typeof week === "string")
		return { kind: "unknown", why: week ?? "" };
	return {
		kind: "sums",
		today: hidePeople(today, people),
		week: hidePeople(week, people),
		timezone,
	};
}

/**
 * The zone of this process, or UTC where it has none that Intl knows: with TZ set
 * to nothing or to a file Node tells "Etc/Unknown" or none.
 */
function zoneHere(): string {
	const { timeZone } = new Intl.DateTimeFormat().resolvedOptions();
	try {
		return new Intl.DateTimeFormat("en-US", {
			timeZone: timeZone ?? "UTC",
		}).resolvedOptions().timeZone;
	} catch (error) {
		if (error instanceof RangeError) return "UTC";
		throw error;
	}
}

/**
 * The ledger knows people by name. Unless the log may do so too, those of one app
 * are one user, as `llamagate top` has it.
 */
function hidePeople(
	rows: readonly UsageRow[],
	people: Sources["people"],
): UsageRow[] {
	if (people === "on") return [...rows];
	const sums = new Map<string, UsageRow>();
	for (const row of rows) {
		const user =
			/^login(?=:)|^(?:jwt|headers):[^:]*/.exec(row.user ?? "")?.[0] ??
			row.user ??
			"";
		const sum = sums.get(user);
		sums.set(user, {
			...row,
			user,
			gpuMs: row.gpuMs + (sum?.gpuMs ?? 0),
			requests: row.requests + (sum?.requests ?? 0),
			refused: row.refused + (sum?.refused ?? 0),
			tokensIn: row.tokensIn + (sum?.tokensIn ?? 0),
			tokensOut: row.tokensOut + (sum?.tokensOut ?? 0),
		});
	}
	return [...sums.values()].sort((a, b) => b.gpuMs - a.gpuMs);
}

import type { Amounts, UsageRecord } from "./record.ts";

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;

/** By what usage may be told apart. */
export const dimensions = [
	"user",
	"key",
	"model",
	"day",
	"node",
	"gate",
] as const;
export type Dimension = (typeof dimensions)[number];

export interface UsageQuery {
	/** Epoch milliseconds. What is older than the records is told by whole days. */
	readonly sinceMs: number;
	readonly by: readonly Dimension[];
	/** The first moment that is not counted; as late as there are records if it is not given. */
	readonly untilMs?: number;
	/** Of this key alone. */
	readonly key?: string;
	/** Of the asked ledger's gate alone, where several write to one database. */
	readonly own?: boolean;
}

/** A sum. What was not asked for by is null; a day is one of UTC, such as `2030-01-31`. */
export interface UsageRow extends Amounts {
	readonly user: string | null;
	readonly key: string | null;
	readonly model: string | null;
	readonly day: string | null;
	readonly node: string | null;
	/** Which gate's ledger wrote it. */
	readonly gate: string | null;
	/** Requests among them that the gate refused. */
	readonly refused: number;
}

/** So long a gate that does not come again may yet do so. */
export const sourceLifeMs = 30 * dayMs;

/** Where records are kept. What a call promises holds when it has returned, or its promise is kept. */
export interface Store {
	/** The number of a source's last batch that is kept; 0 if there is none. */
	lastBatch(source: string): number | Promise<number>;
	/**
	 * Writes a batch, unless it is there already: then it is on the disk.
	 *
	 * @throws what is against it; nothing of it is kept then, or all of it, and a
	 *   second call does not count it twice
	 */
	append(
		source: string,
		batch: number,
		records: readonly UsageRecord[],
	): void | Promise<void>;
	/** Sums from a time on, in the order of the GPU's time, most first. */
	usage(query: UsageQuery, nowMs?: number): UsageRow[] | Promise<UsageRow[]>;
	/**
	 * Deletes some of what is older than the retention. Sums of days stay.
	 *
	 * @returns whether there may be more of it
	 */
	forgetSome(most: number, nowMs?: number): boolean | Promise<boolean>;
	/** Why a call failed, for people. */
	explain(error: unknown): string;
	close(): void | Promise<void>;
}

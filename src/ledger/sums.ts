import { type Amounts, amountNames, type UsageRecord } from "./record.ts";
import { dayMs, hourMs } from "./store.ts";

export type Sums = Record<keyof Amounts | "refused", number>;

/** What is summed up, in the order in which stores have it. */
export const sumNames = [...amountNames, "refused"] as const;

/** What a party used in an hour or a day, counted since 1970 (UTC). */
export interface BucketSum {
	readonly bucket: number;
	readonly party: number;
	readonly sum: Sums;
}

/** @param parties of the records, in their order */
export function sumUp(
	records: readonly UsageRecord[],
	parties: readonly number[],
): Record<"hours" | "days", BucketSum[]> {
	const sums = (lengthMs: number) => {
		const held = new Map<string, BucketSum>();
		for (const [index, record] of records.entries())
			add(
				held,
				Math.floor(record.time / lengthMs),
				parties[index] ?? 0,
				record,
			);
		return [...held.values()];
	};
	return { hours: sums(hourMs), days: sums(dayMs) };
}

function add(
	held: Map<string, BucketSum>,
	bucket: number,
	party: number,
	record: UsageRecord,
): void {
	const id = `${bucket} ${party}`;
	let one = held.get(id);
	if (one === undefined) {
		const none = Object.fromEntries(sumNames.map((name) => [name, 0])) as Sums;
		one = { bucket, party, sum: none };
		held.set(id, one);
	}
	for (const name of amountNames) one.sum[name] += record[name];
	if (record.outcome === "refused") one.sum.refused += record.requests;
}

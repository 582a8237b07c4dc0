import { amountNames, outcomes } from "./record.ts";
import {
	type Dimension,
	dayMs,
	hourMs,
	type UsageQuery,
	type UsageRow,
} from "./store.ts";
import { type Sums, sumNames } from "./sums.ts";

/** What the two databases have otherwise. */
export interface Dialect {
	/** A table's full name. */
	table(name: string): string;
	/** The mark for the nth value, from 1. */
	value(n: number): string;
	/** What cannot be told apart here. */
	readonly unknown?: readonly Dimension[];
}

export interface UsageStatement {
	readonly sql: string;
	readonly values: readonly string[];
}

const list = (wrap: (name: string) => string) => sumNames.map(wrap).join(", ");

/**
 * What a question asks of the tables `records`, `hours`, `days` and `parties`:
 * whole days from their sums, then hours, and what is left from the records.
 *
 * @param horizonDay the first day of which there are hours and records
 * @param gate counts alone, where it is given
 * @returns `undefined` where the answer is nothing
 */
export function usageStatement(
	{ sinceMs, untilMs, by, key }: UsageQuery,
	horizonDay: number,
	dialect: Dialect,
	gate?: string,
): UsageStatement | undefined {
	const parts = partsOf(sinceMs, untilMs, horizonDay, dialect);
	if (parts.length === 0) return undefined;
	const named = by
		.filter((name) => !dialect.unknown?.includes(name))
		.map((name) => (name === "day" ? "day" : `p.${name}`));
	const wanted = Object.entries({ key, gate }).filter(
		(one): one is [string, string] => one[1] !== undefined,
	);
	const conditions = wanted.map(
		([name], index) => `p.${name} = ${dialect.value(index + 1)}`,
	);
	const sql = `SELECT ${[...named, list((name) => `sum(s.${name}) AS "${name}"`)].join(", ")}
		FROM (
			SELECT party, day, ${list((name) => `sum(${name}) AS ${name}`)}
			FROM (${parts.join(" UNION ALL ")}) AS part GROUP BY party, day
		) AS s JOIN ${dialect.table("parties")} AS p ON p.id = s.party
		${conditions.length === 0 ? "" : `WHERE ${conditions.join(" AND ")}`}
		${named.length === 0 ? "" : `GROUP BY ${named.join(", ")}`}
		ORDER BY "gpuMs" DESC, "requests" DESC`;
	return { sql, values: wanted.map(([, value]) => value) };
}

function partsOf(
	sinceMs: number,
	untilMs: number | undefined,
	horizonDay: number,
	{ table }: Dialect,
): string[] {
	const isOld = sinceMs < horizonDay * dayMs;
	const endMs = untilMs ?? Number.MAX_SAFE_INTEGER;
	const firstHour = isOld
		? horizonDay * 24
		: Math.max(0, Math.ceil(sinceMs / hourMs));
	const endHour = Math.max(firstHour, Math.floor(endMs / hourMs));
	const firstDay = Math.ceil(firstHour / 24);
	const endDay = Math.max(firstDay, Math.floor(endHour / 24));
	const sums = (name: "hours" | "days", from: number, to: number) =>
		from < to
			? [
					`SELECT party, ${name === "days" ? "bucket" : "bucket / 24"} AS day, ${list(String)} FROM ${table(name)} WHERE bucket >= ${from} AND bucket < ${to}`,
				]
			: [];
	const records = (fromMs: number, toMs: number) =>
		fromMs < toMs
			? [
					`SELECT party, time / ${dayMs} AS day, ${amountNames.join(", ")}, CASE WHEN outcome = ${outcomes.indexOf("refused")} THEN requests ELSE 0 END AS refused FROM ${table("records")} WHERE time >= ${Math.max(0, Math.floor(fromMs))} AND time < ${toMs}`,
				]
			: [];
	return [
		...(isOld
			? sums(
					"days",
					Math.max(0, Math.floor(sinceMs / dayMs)),
					Math.min(horizonDay, Math.ceil(endMs / dayMs)),
				)
			: records(sinceMs, Math.min(firstHour * hourMs, endMs))),
		...sums("hours", firstHour, Math.min(firstDay * 24, endHour)),
		...sums("days", firstDay, endDay),
		...sums("hours", Math.max(endDay * 24, firstHour), endHour),
		...records(Math.max(endHour * hourMs, sinceMs), endMs),
	];
}

/** What a database answers, as rows. A sum of nothing is none. */
export function rowsOf(
	answer: readonly Readonly<Record<string, unknown>>[],
	by: readonly Dimension[],
): UsageRow[] {
	return answer
		.filter(({ requests }) => requests !== null)
		.map((row) => rowOf(row, by));
}

function rowOf(
	row: Readonly<Record<string, unknown>>,
	by: readonly Dimension[],
): UsageRow {
	const named = (name: Dimension) =>
		by.includes(name) && row[name] !== "" ? String(row[name]) : null;
	const sum = Object.fromEntries(
		sumNames.map((name) => [name, Number(row[name])]),
	) as Sums;
	return {
		user: named("user"),
		key: named("key"),
		model: named("model"),
		day: by.includes("day") ? dayText(Number(row.day)) : null,
		node: named("node"),
		gate: named("gate"),
		...sum,
	};
}

function dayText(day: number): string {
	return new Date(day * dayMs).toISOString().slice(0, 10);
}

import type { DatabaseSync, StatementSync } from "node:sqlite";
import {
	type Amounts,
	amountNames,
	outcomes,
	type UsageRecord,
} from "./record.ts";

export const hourMs = 3_600_000;
export const dayMs = 24 * hourMs;

/** By what usage may be told apart. */
export const dimensions = ["user", "key", "model", "day", "node"] as const;
export type Dimension = (typeof dimensions)[number];

export interface UsageQuery {
	/** Epoch milliseconds. What is older than the records is told by whole days. */
	readonly sinceMs: number;
	readonly by: readonly Dimension[];
	/** The first moment that is not counted; as late as there are records if it is not given. */
	readonly untilMs?: number;
	/** Of this key alone. */
	readonly key?: string;
}

/** A sum. What was not asked for by is null; a day is one of UTC, such as `2030-01-31`. */
export interface UsageRow extends Amounts {
	readonly user: string | null;
	readonly key: string | null;
	readonly model: string | null;
	readonly day: string | null;
	readonly node: string | null;
	/** Requests among them that the gate refused. */
	readonly refused: number;
}

/** So many names are remembered; a key may make up more. */
const maxKnownParties = 50_000;
/** So long a gate that does not come again may yet do so. */
const sourceLifeMs = 30 * dayMs;

type Sums = Record<keyof Amounts | "refused", number>;

const columns = [...amountNames, "refused"] as const;
const list = (wrap: (name: string) => string) => columns.map(wrap).join(", ");

/** The ledger's open file. Every call is done when it returns: it is on the disk. */
export class Store {
	readonly #db: DatabaseSync;
	readonly #retentionMs: number;
	readonly #parties = new Map<string, number>();
	readonly #insert: StatementSync;
	readonly #addParty: StatementSync;
	readonly #findParty: StatementSync;
	readonly #addTo: Readonly<Record<"hours" | "days", StatementSync>>;
	readonly #noteSource: StatementSync;
	readonly #lastOf: StatementSync;

	/** @param db as `openStore` opens it */
	constructor(db: DatabaseSync, retentionMs: number) {
		this.#db = db;
		this.#retentionMs = retentionMs;
		const amounts = amountNames.join(", ");
		this.#insert = db.prepare(
			`INSERT INTO records (time, party, outcome, ${amounts}) VALUES (?, ?, ?, ${amountNames.map(() => "?").join(", ")})`,
		);
		this.#addParty = db.prepare(
			"INSERT INTO parties (user, userBy, key, node, model, route) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
		);
		this.#findParty = db.prepare(
			"SELECT id FROM parties WHERE user = ? AND userBy = ? AND key = ? AND node = ? AND model = ? AND route = ?",
		);
		const addTo = (table: string) =>
			db.prepare(
				`INSERT INTO ${table} (bucket, party, ${list(String)}) VALUES (?, ?, ${list(() => "?")})
				ON CONFLICT DO UPDATE SET ${list((name) => `${name} = ${name} + excluded.${name}`)}`,
			);
		this.#addTo = { hours: addTo("hours"), days: addTo("days") };
		this.#noteSource = db.prepare(
			"INSERT INTO sources (name, batch, seen) VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET batch = excluded.batch, seen = excluded.seen",
		);
		this.#lastOf = db.prepare("SELECT batch FROM sources WHERE name = ?");
	}

	/** The number of a source's last batch that is in the file; 0 if there is none. */
	lastBatch(source: string): number {
		return Number(this.#lastOf.get(source)?.batch ?? 0);
	}

	/**
	 * Writes a batch, unless it is in the file already.
	 *
	 * @throws what SQLite has against it; then nothing of it is in the file
	 */
	append(source: string, batch: number, records: readonly UsageRecord[]): void {
		if (batch <= this.lastBatch(source)) return;
		this.#inTransaction(() => {
			const hours = new Map<string, [number, number, Sums]>();
			const days = new Map<string, [number, number, Sums]>();
			for (const record of records) {
				const party = this.#partyOf(record);
				this.#insert.run(
					record.time,
					party,
					outcomes.indexOf(record.outcome),
					...amountNames.map((name) => record[name]),
				);
				addUp(hours, Math.floor(record.time / hourMs), party, record);
				addUp(days, Math.floor(record.time / dayMs), party, record);
			}
			for (const [table, sums] of Object.entries({ hours, days }))
				for (const [bucket, party, sum] of sums.values())
					this.#addTo[table as "hours" | "days"].run(
						bucket,
						party,
						...columns.map((name) => sum[name]),
					);
			this.#noteSource.run(source, batch, Date.now());
		});
	}

	#inTransaction(action: () => void): void {
		this.#db.exec("BEGIN IMMEDIATE");
		try {
			action();
			this.#db.exec("COMMIT");
		} catch (error) {
			// Some of its names may not be in the file any more.
			this.#parties.clear();
			// Where the disk is full, SQLite has done so itself.
			if (this.#db.isTransaction) this.#db.exec("ROLLBACK");
			throw error;
		}
	}

	#partyOf({ user, userBy, key, node, model, route }: UsageRecord): number {
		const names = [user, userBy, key, node ?? "", model ?? "", route];
		const id = JSON.stringify(names);
		const known = this.#parties.get(id);
		if (known !== undefined) return known;
		this.#addParty.run(...names);
		const party = Number(this.#findParty.get(...names)?.id);
		if (this.#parties.size >= maxKnownParties) this.#parties.clear();
		this.#parties.set(id, party);
		return party;
	}

	/** Sums from a time on, in the order of the GPU's time, most first. */
	usage(
		{ sinceMs, untilMs, by, key }: UsageQuery,
		nowMs = Date.now(),
	): UsageRow[] {
		const horizonDay = this.#horizonDay(nowMs);
		const isOld = sinceMs < horizonDay * dayMs;
		const endMs = untilMs ?? Number.MAX_SAFE_INTEGER;
		const firstHour = isOld
			? horizonDay * 24
			: Math.max(0, Math.ceil(sinceMs / hourMs));
		const endHour = Math.max(firstHour, Math.floor(endMs / hourMs));
		const firstDay = Math.ceil(firstHour / 24);
		const endDay = Math.max(firstDay, Math.floor(endHour / 24));
		const sums = (table: "hours" | "days", from: number, to: number) =>
			from < to
				? [
						`SELECT party, ${table === "days" ? "bucket" : "bucket / 24"} AS day, ${list(String)} FROM ${table} WHERE bucket >= ${from} AND bucket < ${to}`,
					]
				: [];
		const records = (fromMs: number, toMs: number) =>
			fromMs < toMs
				? [
						`SELECT party, time / ${dayMs} AS day, ${amountNames.join(", ")}, iif(outcome = ${outcomes.indexOf("refused")}, requests, 0) AS refused FROM records WHERE time >= ${Math.max(0, Math.floor(fromMs))} AND time < ${toMs}`,
					]
				: [];
		// Whole days from their sums, then hours, and what is left from the records.
		const parts = [
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
		if (parts.length === 0) return [];
		const named = by.map((name) => (name === "day" ? "day" : `p.${name}`));
		const rows = this.#db
			.prepare(
				`SELECT ${[...named, list((name) => `sum(s.${name}) AS ${name}`)].join(", ")}
				FROM (
					SELECT party, day, ${list((name) => `sum(${name}) AS ${name}`)}
					FROM (${parts.join(" UNION ALL ")}) GROUP BY party, day
				) s JOIN parties p ON p.id = s.party
				${key === undefined ? "" : "WHERE p.key = ?"}
				${named.length === 0 ? "" : `GROUP BY ${named.join(", ")}`}
				ORDER BY gpuMs DESC, requests DESC`,
			)
			.all(...(key === undefined ? [] : [key]));
		return rows
			.filter((row) => row.requests !== null)
			.map((row) => rowOf(row as Record<string, string | number>, by));
	}

	/** The first day of which there are hours and records. */
	#horizonDay(nowMs: number): number {
		return Math.floor((nowMs - this.#retentionMs) / dayMs);
	}

	/**
	 * Deletes some of what is older than the retention. Sums of days stay.
	 *
	 * @returns whether there may be more of it
	 */
	forgetSome(most: number, nowMs = Date.now()): boolean {
		const day = this.#horizonDay(nowMs);
		let gone = 0;
		this.#inTransaction(() => {
			const run = (sql: string, before: number) => {
				gone += Number(this.#db.prepare(sql).run(before, most).changes);
			};
			run(
				"DELETE FROM records WHERE rowid IN (SELECT rowid FROM records WHERE time < ? LIMIT ?)",
				day * dayMs,
			);
			run(
				"DELETE FROM hours WHERE (bucket, party) IN (SELECT bucket, party FROM hours WHERE bucket < ? LIMIT ?)",
				day * 24,
			);
			this.#db
				.prepare("DELETE FROM sources WHERE seen < ?")
				.run(nowMs - sourceLifeMs);
		});
		return gone >= most;
	}

	close(): void {
		this.#db.close();
	}
}

function addUp(
	sums: Map<string, [number, number, Sums]>,
	bucket: number,
	party: number,
	record: UsageRecord,
): void {
	const id = `${bucket} ${party}`;
	let held = sums.get(id);
	if (held === undefined) {
		const none = Object.fromEntries(columns.map((name) => [name, 0])) as Sums;
		held = [bucket, party, none];
		sums.set(id, held);
	}
	const [, , sum] = held;
	for (const name of amountNames) sum[name] += record[name];
	if (record.outcome === "refused") sum.refused += record.requests;
}

function rowOf(
	row: Record<string, string | number>,
	by: readonly Dimension[],
): UsageRow {
	const named = (name: Dimension) =>
		by.includes(name) && row[name] !== "" ? String(row[name]) : null;
	const sum = Object.fromEntries(
		columns.map((name) => [name, Number(row[name])]),
	) as Sums;
	return {
		user: named("user"),
		key: named("key"),
		model: named("model"),
		day: by.includes("day") ? dayText(Number(row.day)) : null,
		node: named("node"),
		...sum,
	};
}

function dayText(day: number): string {
	return new Date(day * dayMs).toISOString().slice(0, 10);
}

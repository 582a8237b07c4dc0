import type { DatabaseSync, StatementSync } from "node:sqlite";
import { amountNames, outcomes, type UsageRecord } from "./record.ts";
import { explain } from "./sqliteErrors.ts";
import {
	dayMs,
	type Store,
	sourceLifeMs,
	type UsageQuery,
	type UsageRow,
} from "./store.ts";
import { type BucketSum, sumNames, sumUp } from "./sums.ts";
import { rowsOf, usageStatement } from "./usageSql.ts";

/** So many names are remembered; a key may make up more. */
const maxKnownParties = 50_000;
const list = (wrap: (name: string) => string) => sumNames.map(wrap).join(", ");

/** As SQLite has it; a file is one gate's, whose name it does not hold. */
const dialect = {
	table: (name: string) => name,
	value: () => "?",
	unknown: ["gate"] as const,
};

/** The ledger's open file. Every call is done when it returns: it is on the disk. */
export class SqliteStore implements Store {
	readonly #db: DatabaseSync;
	readonly #retentionMs: number;
	readonly #gate: string;
	readonly #parties = new Map<string, number>();
	readonly #insert: StatementSync;
	readonly #addParty: StatementSync;
	readonly #findParty: StatementSync;
	readonly #addTo: Readonly<Record<"hours" | "days", StatementSync>>;
	readonly #noteSource: StatementSync;
	readonly #lastOf: StatementSync;

	/**
	 * @param db as `openStore` opens it
	 * @param gate whose file it is
	 */
	constructor(db: DatabaseSync, retentionMs: number, gate: string) {
		this.#db = db;
		this.#retentionMs = retentionMs;
		this.#gate = gate;
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

	lastBatch(source: string): number {
		return Number(this.#lastOf.get(source)?.batch ?? 0);
	}

	append(source: string, batch: number, records: readonly UsageRecord[]): void {
		if (batch <= this.lastBatch(source)) return;
		this.#inTransaction(() => {
			const parties = records.map((record) => this.#partyOf(record));
			for (const [index, record] of records.entries())
				this.#insert.run(
					record.time,
					// One for each.
					parties[index] ?? 0,
					outcomes.indexOf(record.outcome),
					...amountNames.map((name) => record[name]),
				);
			const { hours, days } = sumUp(records, parties);
			const keep = (into: StatementSync, sums: readonly BucketSum[]) => {
				for (const { bucket, party, sum } of sums)
					into.run(bucket, party, ...sumNames.map((name) => sum[name]));
			};
			keep(this.#addTo.hours, hours);
			keep(this.#addTo.days, days);
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

	usage(query: UsageQuery, nowMs = Date.now()): UsageRow[] {
		const statement = usageStatement(query, this.#horizonDay(nowMs), dialect);
		if (statement === undefined) return [];
		const rows = this.#db.prepare(statement.sql).all(...statement.values);
		return rowsOf(
			rows.map((row) => ({ ...row, gate: this.#gate })),
			query.by,
		);
	}

	/** The first day of which there are hours and records. */
	#horizonDay(nowMs: number): number {
		return Math.floor((nowMs - this.#retentionMs) / dayMs);
	}

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

	explain(error: unknown): string {
		return explain(error);
	}

	close(): void {
		if (this.#db.isOpen) this.#db.close();
	}
}

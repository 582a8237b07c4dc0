import { createHash } from "node:crypto";
import type { Client } from "pg";
import type { DatabasePlace } from "../../config/databaseUrl.ts";
import { Finding } from "../../errors.ts";
import { amountNames, outcomes, type UsageRecord } from "../record.ts";
import {
	dayMs,
	type Store,
	sourceLifeMs,
	type UsageQuery,
	type UsageRow,
} from "../store.ts";
import { type BucketSum, sumNames, sumUp } from "../sums.ts";
import { rowsOf, usageStatement } from "../usageSql.ts";
import { Connection } from "./connection.ts";
import { explain } from "./errors.ts";
import { prepareSchema } from "./schema.ts";

/** So many names are remembered; a key may make up more. */
const maxKnownParties = 50_000;
/** How long records may take to be written, and sums to be told. A gate waits for a minute. */
const writeMs = 10_000;
const readMs = 30_000;

export interface PostgresOptions extends DatabasePlace {
	readonly retentionMs: number;
	/** Whose records these are. Several gates may have one database. */
	readonly gate: string;
	/** For tests. */
	readonly writeMs?: number;
}

const dialect = {
	table: (name: string) => `llamagate.${name}`,
	value: (n: number) => `$${n}`,
};

const sumList = (wrap: (name: string) => string) =>
	sumNames.map(wrap).join(", ");
const bigints = (count: number, from: number) =>
	Array.from({ length: count }, (_, n) => `$${from + n}::bigint[]`).join(", ");

const recordColumns = ["time", "party", "outcome", ...amountNames];
const sumColumns = ["bucket", "party", ...sumNames];
const firstOf = {
	records: 4,
	hours: 4 + recordColumns.length,
	days: 4 + recordColumns.length + sumColumns.length,
};
const addTo = (table: "hours" | "days") =>
	`INSERT INTO llamagate.${table} AS held (${sumColumns.join(", ")})
	SELECT * FROM unnest(${bigints(sumColumns.length, firstOf[table])}) WHERE EXISTS (SELECT FROM noted)
	ON CONFLICT (bucket, party) DO UPDATE SET ${sumList((name) => `${name} = held.${name} + excluded.${name}`)}`;

/**
 * Writes a batch whole: one statement is one transaction. The batch's number is
 * noted first, which waits for another that notes it at the same time, such as
 * one of a ledger that was killed while the server went on; the records follow
 * only where it was not noted before.
 */
const appendStatement = `WITH noted AS (
	INSERT INTO llamagate.sources AS held (name, batch, seen) VALUES ($1, $2, $3)
	ON CONFLICT (name) DO UPDATE SET batch = excluded.batch, seen = excluded.seen
	WHERE held.batch < excluded.batch RETURNING 1
), kept AS (
	INSERT INTO llamagate.records (${recordColumns.join(", ")})
	SELECT * FROM unnest(${bigints(recordColumns.length, firstOf.records)}) WHERE EXISTS (SELECT FROM noted)
), hourly AS (${addTo("hours")}), daily AS (${addTo("days")})
SELECT count(*) FROM noted`;

/**
 * Records of several hosts in one PostgreSQL. Each has been acknowledged when it
 * is on the server's disk. What is asked for has a time limit, whatever the
 * server does.
 */
export class PostgresStore implements Store {
	readonly #options: PostgresOptions;
	/** A question keeps no record waiting. */
	readonly #writer: Connection;
	readonly #reader: Connection;
	readonly #parties = new Map<string, number>();

	constructor(options: PostgresOptions) {
		this.#options = options;
		const { database, passwordFile } = options;
		const place = { database, passwordFile };
		const limitMs = options.writeMs ?? writeMs;
		this.#writer = new Connection(
			{ ...place, statementMs: limitMs },
			async (client) => {
				// It may be another database than the one before, under the same name.
				this.#parties.clear();
				await prepareSchema(client);
				await this.#signIn(client, Date.now());
			},
		);
		this.#reader = new Connection(
			{ ...place, statementMs: options.writeMs ?? readMs },
			prepareSchema,
		);
	}

	/**
	 * Looks whether the database is one to write to. One that does not answer now
	 * may do so later.
	 *
	 * @returns why it is not there
	 * @throws {Finding} if it will not do, however long one waits
	 */
	async probe(): Promise<string | undefined> {
		try {
			await this.lastBatch("");
			return undefined;
		} catch (error) {
			if (error instanceof Finding) throw error;
			return explain(error);
		}
	}

	lastBatch(source: string): Promise<number> {
		return this.#writer.run(async (client) => {
			const { rows } = await client.query<{ batch: string }>(
				"SELECT batch FROM llamagate.sources WHERE name = $1",
				[source],
			);
			return Number(rows[0]?.batch ?? 0);
		});
	}

	append(
		source: string,
		batch: number,
		records: readonly UsageRecord[],
	): Promise<void> {
		return this.#writer.run(async (client) => {
			const parties = await this.#partiesOf(client, records);
			const { hours, days } = sumUp(records, parties);
			await client.query(appendStatement, [
				source,
				batch,
				Date.now(),
				records.map(({ time }) => time),
				parties,
				records.map(({ outcome }) => outcomes.indexOf(outcome)),
				...amountNames.map((name) => records.map((record) => record[name])),
				...sumArrays(hours),
				...sumArrays(days),
			]);
		});
	}

	/** The numbers of the records' names, in their order. They are written by themselves: to have more of them does no harm. */
	async #partiesOf(
		client: Client,
		records: readonly UsageRecord[],
	): Promise<number[]> {
		const ids = records.map((record) => partyId(this.#options.gate, record));
		const unknown = new Map<string, readonly string[]>();
		for (const [index, record] of records.entries()) {
			const id = ids[index] ?? "";
			if (!this.#parties.has(id))
				unknown.set(id, namesOf(this.#options.gate, record));
		}
		if (unknown.size > 0) {
			if (this.#parties.size + unknown.size > maxKnownParties)
				return this.#afresh(client, records);
			await this.#learn(client, unknown);
		}
		return ids.map((id) => {
			const party = this.#parties.get(id);
			if (party === undefined) throw new Error("a name was not written");
			return party;
		});
	}

	#afresh(client: Client, records: readonly UsageRecord[]): Promise<number[]> {
		this.#parties.clear();
		return this.#partiesOf(client, records);
	}

	async #learn(
		client: Client,
		unknown: ReadonlyMap<string, readonly string[]>,
	): Promise<void> {
		// In one order, so that two that write the same never wait for each other.
		const ids = [...unknown.keys()].sort();
		const digests = ids.map((id) => Buffer.from(id, "hex"));
		const columns = partyColumns.map((_, column) =>
			ids.map((id) => unknown.get(id)?.[column] ?? ""),
		);
		await client.query(
			`INSERT INTO llamagate.parties (digest, ${partyColumns.join(", ")})
			SELECT * FROM unnest($1::bytea[], ${partyColumns.map((_, n) => `$${n + 2}::text[]`).join(", ")})
			ON CONFLICT (digest) DO NOTHING`,
			[digests, ...columns],
		);
		const { rows } = await client.query<{ id: string; digest: string }>(
			"SELECT id, encode(digest, 'hex') AS digest FROM llamagate.parties WHERE digest = ANY($1::bytea[])",
			[digests],
		);
		for (const { id, digest } of rows) this.#parties.set(digest, Number(id));
	}

	usage(query: UsageQuery, nowMs = Date.now()): Promise<UsageRow[]> {
		return this.#reader.run(async (client) => {
			const statement = usageStatement(
				query,
				await this.#horizonDay(client, nowMs),
				dialect,
				query.own ? this.#options.gate : undefined,
			);
			if (statement === undefined) return [];
			const { rows } = await client.query(statement.sql, [...statement.values]);
			return rowsOf(rows, query.by);
		});
	}

	/** Says how long this gate wants to keep records. */
	async #signIn(client: Client, nowMs: number): Promise<void> {
		const { gate, retentionMs } = this.#options;
		await client.query(
			`INSERT INTO llamagate.gates (name, retentionMs, seen) VALUES ($1, $2, $3)
			ON CONFLICT (name) DO UPDATE SET retentionMs = excluded.retentionMs, seen = excluded.seen`,
			[gate, retentionMs, nowMs],
		);
	}

	/** The first day of which there are hours and records: the same for all gates, so the longest of their times counts. */
	async #horizonDay(client: Client, nowMs: number): Promise<number> {
		const { rows } = await client.query<{ longest: string }>(
			"SELECT greatest($1::bigint, max(retentionMs)) AS longest FROM llamagate.gates WHERE seen >= $2",
			[this.#options.retentionMs, nowMs - sourceLifeMs],
		);
		const longestMs = Number(rows[0]?.longest ?? this.#options.retentionMs);
		return Math.floor((nowMs - longestMs) / dayMs);
	}

	forgetSome(most: number, nowMs = Date.now()): Promise<boolean> {
		return this.#reader.run(async (client) => {
			await this.#signIn(client, nowMs);
			const day = await this.#horizonDay(client, nowMs);
			let gone = 0;
			const forget = async (table: string, column: string, before: number) => {
				// Two ledgers that delete at once do not wait for each other.
				const { rowCount } = await client.query(
					`DELETE FROM llamagate.${table} WHERE ctid = ANY (ARRAY (
						SELECT ctid FROM llamagate.${table} WHERE ${column} < $1 LIMIT $2 FOR UPDATE SKIP LOCKED
					))`,
					[before, most],
				);
				gone += rowCount ?? 0;
			};
			await forget("records", "time", day * dayMs);
			await forget("hours", "bucket", day * 24);
			await client.query("DELETE FROM llamagate.sources WHERE seen < $1", [
				nowMs - sourceLifeMs,
			]);
			return gone >= most;
		});
	}

	/** What a setting is on the connection that writes, for tests. */
	show(setting: string): Promise<string> {
		return this.#writer.run(async (client) => {
			const { rows } = await client.query<{ value: string }>(
				"SELECT current_setting($1) AS value",
				[setting],
			);
			return rows[0]?.value ?? "";
		});
	}

	explain(error: unknown): string {
		return explain(error);
	}

	async close(): Promise<void> {
		await Promise.all([this.#writer.close(), this.#reader.close()]);
	}
}

const partyColumns = [
	"gate",
	'"user"',
	"userBy",
	"key",
	"node",
	"model",
	"route",
];

function namesOf(gate: string, record: UsageRecord): readonly string[] {
	const { user, userBy, key, node, model, route } = record;
	// What a text of PostgreSQL cannot hold.
	return [gate, user, userBy, key, node ?? "", model ?? "", route].map((name) =>
		name.replaceAll("\0", "\ufffd").toWellFormed(),
	);
}

function partyId(gate: string, record: UsageRecord): string {
	return createHash("sha256")
		.update(JSON.stringify(namesOf(gate, record)))
		.digest("hex");
}

/** In one order, so that two ledgers of one gate never wait for each other. */
function sumArrays(sums: readonly BucketSum[]): number[][] {
	const sorted = sums.toSorted(
		(a, b) => a.bucket - b.bucket || a.party - b.party,
	);
	return [
		sorted.map(({ bucket }) => bucket),
		sorted.map(({ party }) => party),
		...sumNames.map((name) => sorted.map(({ sum }) => sum[name])),
	];
}

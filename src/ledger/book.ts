import type { DatabasePlace } from "../config/databaseUrl.ts";
import type { Log } from "../log.ts";
import { openStore } from "./openStore.ts";
import type { UsageRecord } from "./record.ts";
import { isTorn } from "./sqliteErrors.ts";
import type { Store, UsageQuery, UsageRow } from "./store.ts";

/** How many old records go at once. */
const forgetAtOnce = 5_000;
/** What goes wrong with each batch is said once in so long. */
const saidAgainAfterMs = 60_000;

/** Where a ledger's records go. */
export interface BookPlace {
	/** Absolute. It counts where no database is configured. */
	readonly file: string;
	readonly database?: DatabasePlace | undefined;
	readonly retentionMs: number;
	/** Whose records these are. */
	readonly gate?: string;
	/** For tests of a full disk. */
	readonly maxPages?: number;
}

/** The store, and what becomes of it. Nothing here throws, once it is open. */
export class Book {
	readonly #log: Log;
	/** Opens it; once more, where it was found torn. */
	readonly #open: () => Store;
	#store: Store;
	/** The store was found torn and is closed; another is still to be opened. */
	#isTorn = false;
	#closed = false;
	#complainedAtMs = Number.NEGATIVE_INFINITY;

	/** @throws {Finding} if it cannot be opened */
	constructor(open: () => Store, log: Log) {
		this.#log = log;
		this.#open = open;
		this.#store = open();
	}

	/** The number of a source's last batch that is kept, or why it cannot be told. */
	async lastBatch(source: string): Promise<number | string> {
		try {
			return await this.#openStore().lastBatch(source);
		} catch (error) {
			return this.complain(this.#store.explain(error));
		}
	}

	/** Writes a batch. @returns why it could not, or `undefined` once it is on the disk */
	async write(
		source: string,
		batch: number,
		records: readonly UsageRecord[],
	): Promise<string | undefined> {
		try {
			await this.#openStore().append(source, batch, records);
			return undefined;
		} catch (error) {
			const why = this.complain(this.#store.explain(error));
			// A torn file is set aside when it is opened.
			if (isTorn(error) && !this.#isTorn) {
				this.#isTorn = true;
				await this.#store.close();
			}
			return why;
		}
	}

	/** @returns sums, or why there are none */
	async usage(query: UsageQuery): Promise<UsageRow[] | string> {
		try {
			return await this.#openStore().usage(query);
		} catch (error) {
			return this.complain(this.#store.explain(error));
		}
	}

	/** Deletes what is too old, in parts between which batches are written. */
	async forget(): Promise<void> {
		try {
			while (
				!this.#closed &&
				(await this.#openStore().forgetSome(forgetAtOnce))
			)
				await new Promise((resolve) => setImmediate(resolve));
		} catch (error) {
			if (!this.#closed)
				this.#log.warn(
					{ why: this.#store.explain(error) },
					"old records were not deleted",
				);
		}
	}

	async close(): Promise<void> {
		this.#closed = true;
		if (!this.#isTorn) await this.#store.close();
	}

	/** @throws {Finding} where a torn one cannot be set aside yet */
	#openStore(): Store {
		if (this.#isTorn && !this.#closed) {
			this.#store = this.#open();
			this.#isTorn = false;
		}
		return this.#store;
	}

	/** Says why nothing can be written, now and then. */
	complain(why: string): string {
		const nowMs = performance.now();
		if (!this.#closed && nowMs - this.#complainedAtMs > saidAgainAfterMs) {
			this.#complainedAtMs = nowMs;
			this.#log.error(
				{ event: "ledger_unwritable", why },
				"the ledger cannot write or read; gates keep their records and try again",
			);
		}
		return why;
	}
}

/**
 * Opens the book. A file must be there; a database that is away now may come.
 *
 * @throws {Finding} if it will not do
 */
export async function openBook(place: BookPlace, log: Log): Promise<Book> {
	const { file, database, retentionMs, gate = "", maxPages } = place;
	if (database !== undefined) {
		// Who has no database does not load what speaks to one.
		const { PostgresStore } = await import("./postgres/store.ts");
		const store = new PostgresStore({ ...database, retentionMs, gate });
		const book = new Book(() => store, log);
		try {
			const why = await store.probe();
			if (why !== undefined) book.complain(why);
		} catch (error) {
			await book.close();
			throw error;
		}
		return book;
	}
	return new Book(() => {
		const { store, setAside } = openStore(file, retentionMs, gate, maxPages);
		if (setAside !== undefined)
			log.error(
				{ event: "ledger_torn", file, setAside },
				"the ledger's file is torn; it was set aside, and a new one begun. sqlite3 may save what is in it: .recover",
			);
		return store;
	}, log);
}

import { closeSync, existsSync, openSync, readSync, renameSync } from "node:fs";
import path from "node:path";
import { DatabaseSync } from "node:sqlite";
import { Finding } from "../errors.ts";
import { applicationId, createSchema, schemaVersion } from "./schema.ts";
import {
	codeOf,
	explain,
	isTorn,
	sqliteCodes,
	TornError,
} from "./sqliteErrors.ts";
import { SqliteStore } from "./sqliteStore.ts";

/** An open ledger file. */
export interface OpenedStore {
	readonly store: SqliteStore;
	/** Where a torn file was put that lay there before. */
	readonly setAside: string | undefined;
}

/**
 * Opens the ledger's file, or makes it. It is this process's alone, until it is
 * closed or the process ends, however it ends: the kernel holds the lock. A file
 * that is torn is renamed, and a new one made.
 *
 * @param gate whose file it is
 * @param maxPages for tests of a full disk
 * @throws {Finding} if another ledger has it, if a newer llamagate has made it,
 *   if it is something else's, or if it cannot be opened
 */
export function openStore(
	file: string,
	retentionMs: number,
	gate = "",
	maxPages?: number,
): OpenedStore {
	const open = () =>
		new SqliteStore(openChecked(file, maxPages), retentionMs, gate);
	try {
		return { store: open(), setAside: undefined };
	} catch (error) {
		if (!isTorn(error)) throw asFinding(file, error);
		refuseStrange(file);
	}
	const setAside = putAside(file);
	try {
		return { store: open(), setAside };
	} catch (error) {
		throw asFinding(file, error);
	}
}

function openChecked(file: string, maxPages: number | undefined): DatabaseSync {
	const db = new DatabaseSync(file, { timeout: 0 });
	try {
		// Without the memory that processes share, WAL works for one connection alone,
		// whose lock is the file's: sqlite.org/wal.html#noshm.
		db.exec("PRAGMA locking_mode = EXCLUSIVE");
		db.exec("PRAGMA journal_mode = WAL");
		db.exec("BEGIN IMMEDIATE; COMMIT");
		// What has been acknowledged is there after a power cut too.
		db.exec("PRAGMA synchronous = FULL");
		db.exec("PRAGMA cache_size = -32768");
		if (maxPages !== undefined) db.exec(`PRAGMA max_page_count = ${maxPages}`);
		checkOwner(db, file);
		const [check] = db.prepare("PRAGMA quick_check(1)").all();
		if (check?.quick_check !== "ok")
			throw new TornError(String(check?.quick_check));
		return db;
	} catch (error) {
		db.close();
		throw error;
	}
}

function checkOwner(db: DatabaseSync, file: string): void {
	const number = (pragma: string) =>
		Number(Object.values(db.prepare(`PRAGMA ${pragma}`).get() ?? {})[0]);
	const tables = db.prepare("SELECT count(*) AS n FROM sqlite_schema").get();
	if (Number(tables?.n) === 0) {
		createSchema(db);
		return;
	}
	if (number("application_id") !== applicationId)
		throw new Finding(
			`${file} is a database of another program; name another ledger.file`,
		);
	const version = number("user_version");
	if (version > schemaVersion)
		throw new Finding(
			`${file} was written by a newer llamagate (its form is ${version}, this one knows ${schemaVersion}): install that version again, or move the file away to begin anew`,
		);
}

/** A file that never was a database is not ours to move, such as one that `ledger.file` names by mistake. */
function refuseStrange(file: string): void {
	const head = Buffer.alloc(16);
	const descriptor = openSync(file, "r");
	try {
		readSync(descriptor, head, 0, head.length, 0);
	} finally {
		closeSync(descriptor);
	}
	const isZero = head.every((byte) => byte === 0);
	if (!isZero && head.toString("latin1") !== "SQLite format 3\0")
		throw new Finding(`${file} is not a ledger; name another ledger.file`);
}

/** Renames the file and what SQLite has beside it. @returns where it is now */
function putAside(file: string): string {
	const time = new Date().toISOString().replace(/[:.]/g, "-");
	const aside = `${file}.torn-${time}`;
	for (const suffix of ["-wal", "-shm", ""])
		if (existsSync(file + suffix)) renameSync(file + suffix, aside + suffix);
	return aside;
}

function asFinding(file: string, error: unknown): unknown {
	if (error instanceof Finding) return error;
	switch (codeOf(error)) {
		case sqliteCodes.busy:
			return new Finding(
				`another llamagate ledger has ${file} open; one file has one ledger`,
			);
		case sqliteCodes.cannotOpen:
			return new Finding(
				`cannot open ${file}: does ${path.dirname(file)} exist, and may this user write there?`,
			);
		case sqliteCodes.readonly:
			return new Finding(`this user may not write to ${file}`);
		default:
			return new Finding(`cannot open ${file}: ${explain(error)}`);
	}
}

/** An error of node:sqlite; `errcode` is SQLite's own. */
interface SqliteError extends Error {
	readonly errcode?: number;
}

/** SQLite's result codes, their lower byte (sqlite.org/rescode.html). */
export const sqliteCodes = {
	busy: 5,
	readonly: 8,
	ioError: 10,
	corrupt: 11,
	full: 13,
	cannotOpen: 14,
	notADatabase: 26,
} as const;

/** What SQLite opens, and finds broken when it looks. */
export class TornError extends Error {}

/** Whether an error says that the file itself is broken. */
export function isTorn(error: unknown): boolean {
	const code = codeOf(error);
	return (
		error instanceof TornError ||
		code === sqliteCodes.corrupt ||
		code === sqliteCodes.notADatabase
	);
}

/** SQLite's result code; 0 where it has none. */
export function codeOf(error: unknown): number {
	return ((error as SqliteError).errcode ?? 0) & 0xff;
}

/** Why the file could not be written, for people. */
export function explain(error: unknown): string {
	switch (codeOf(error)) {
		case sqliteCodes.full:
			return "the disk is full";
		case sqliteCodes.ioError:
			return `the disk failed (${(error as Error).message})`;
		default:
			return (error as Error).message;
	}
}

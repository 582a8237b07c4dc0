/** Exit codes, the same for every command. */
export const exitCodes = {
	ok: 0,
	finding: 1,
	usage: 2,
	badConfig: 78,
} as const;

/** An error that the user can do something about. The message is all they see. */
export abstract class UserError extends Error {
	abstract readonly exitCode: number;
}

/** The command line cannot be understood. */
export class UsageError extends UserError {
	readonly exitCode = exitCodes.usage;
}

/** Something stood in the way that the user can mend. */
export class Finding extends UserError {
	readonly exitCode = exitCodes.finding;
}

/** One thing that is wrong with a file: where it is and what to do about it. */
export interface Mistake {
	/** `limits.perKey.concurrent`, or an empty string for the file as a whole. */
	readonly path: string;
	readonly message: string;
	/** Counted from 1; absent when the mistake is something that is not there. */
	readonly line?: number;
}

/** A file that would not load, with everything that is wrong with it. */
export class BadFileError extends UserError {
	readonly exitCode = exitCodes.badConfig;
	readonly code = "LLAMAGATE_BAD_FILE";
	readonly file: string;
	readonly mistakes: readonly Mistake[];

	/** @param summary what is said in place of the list */
	constructor(file: string, mistakes: readonly Mistake[], summary?: string) {
		// In the file's order; what has no line stays at the end.
		const inOrder = mistakes.toSorted(
			(a, b) => (a.line ?? Infinity) - (b.line ?? Infinity) || 0,
		);
		const lines = inOrder.map(
			({ path, message, line }) =>
				`  ${line === undefined ? "" : `line ${line}: `}${path === "" ? "" : `${path}: `}${message}`,
		);
		super(summary ?? `${file} is not usable:\n${lines.join("\n")}`);
		this.name = "BadFileError";
		this.file = file;
		this.mistakes = inOrder;
	}
}

/** What was read of a file; `undefined` where that is not usable. */
export async function ifUsable<T>(reading: Promise<T>): Promise<T | undefined> {
	try {
		return await reading;
	} catch (error) {
		if (error instanceof BadFileError) return undefined;
		throw error;
	}
}

/** Another command holds the keys file for too long. */
export class FileBusyError extends UserError {
	readonly exitCode = exitCodes.finding;
	readonly code = "LLAMAGATE_FILE_BUSY";
}

const reasons: Readonly<Record<string, string>> = {
	ENOSPC: "the disk is full",
	EDQUOT: "the disk quota is used up",
	EROFS: "the file system is read-only",
	EACCES: "this user may not; try sudo",
};

/** The keys file could not be replaced, and is as it was. */
export class UnwritableFileError extends UserError {
	readonly exitCode = exitCodes.finding;
	readonly code = "LLAMAGATE_FILE_UNWRITABLE";

	constructor(file: string, { code, message }: NodeJS.ErrnoException) {
		super(
			`${file} cannot be written: ${reasons[code ?? ""] ?? message} (${code}). It is as it was.`,
		);
	}
}

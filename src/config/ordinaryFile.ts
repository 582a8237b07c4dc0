import { AsyncLocalStorage } from "node:async_hooks";
import { createHash } from "node:crypto";
import { constants, type Stats } from "node:fs";
import { lstat, open, stat } from "node:fs/promises";

/** No file of settings or keys is larger: a hundred thousand keys take some 30 MiB. */
const maxBytes = 64 * 2 ** 20;

/** Something that is not a file to be read whole: a pipe has no end, and nobody may ever write to it. */
export class NoOrdinaryFile extends Error {
	readonly code = "LLAMAGATE_NO_ORDINARY_FILE";
}

/**
 * Reads a file that people write, and nothing else: not a pipe, which would have
 * one wait for ever, nor a device.
 *
 * @throws {NoOrdinaryFile} for anything else, and for a file of more than 64 MiB
 */
export async function readOrdinaryFile(
	file: string,
): Promise<{ text: string; stats: Stats }> {
	// Without O_NONBLOCK, opening a pipe waits for a writer.
	const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
	try {
		const stats = await handle.stat();
		if (!stats.isFile()) throw new NoOrdinaryFile("is not an ordinary file");
		if (stats.size > maxBytes)
			throw new NoOrdinaryFile(`has more than ${maxBytes / 2 ** 20} MiB`);
		const readings = noted.getStore();
		// Of a file that is read twice the first reading counts: its state is the older.
		const isFirst = readings?.has(file) === false;
		const reading: Reading = { state: stateOf(stats), sha256: "" };
		if (isFirst) readings.set(file, reading);
		const text = await handle.readFile("utf8");
		if (isFirst)
			reading.sha256 = createHash("sha256").update(text).digest("hex");
		return { text, stats };
	} finally {
		await handle.close();
	}
}

/** How a file was when it was read. */
interface Reading {
	readonly state: string;
	/** Of what it held, in hexadecimal; empty where that could not be read. */
	sha256: string;
}

/** By the files' paths, how a `noteFiles` has read them. */
const noted = new AsyncLocalStorage<Map<string, Reading>>();
/** How many `noteFiles` are reading. */
let noting = 0;

/**
 * Notes every file that `read` reads by `readOrdinaryFile`, and how it was then.
 *
 * @returns what `read` did, these files in the order of reading with digests of what
 *   they held, and what tells whether any of them is another now: written to,
 *   replaced, or led to elsewhere by a symbolic link
 */
export async function noteFiles<T>(read: () => Promise<T>): Promise<{
	value: T;
	files: readonly { readonly file: string; readonly sha256: string }[];
	haveChanged: () => Promise<boolean>;
}> {
	const readings = new Map<string, Reading>();
	noting += 1;
	const value = await noted.run(readings, read).finally(() => {
		noting -= 1;
		// Left on, it would make every promise dearer in Node 22.
		if (noting === 0) noted.disable();
	});
	return {
		value,
		files: [...readings].map(([file, { sha256 }]) => ({ file, sha256 })),
		async haveChanged() {
			const now = await Promise.all([...readings.keys()].map(stateNow));
			return [...readings.values()].some(
				({ state }, index) => state !== now[index],
			);
		},
	};
}

/**
 * When a file came to be as it is, in epoch milliseconds: its bytes, its owner and
 * mode, or the link that leads to it. What is put back with its old date, as `cp -p`
 * and `tar` do, is as new as that.
 */
export async function lastChangeMs(file: string): Promise<number> {
	const looks = await Promise.all([stat(file), lstat(file)]);
	return Math.max(
		...looks.flatMap(({ mtimeMs, ctimeMs }) => [mtimeMs, ctimeMs]),
	);
}

/** What tells one state of a file from another, or why it cannot be told. */
export function stateNow(file: string): Promise<string> {
	return stat(file).then(
		stateOf,
		(error: NodeJS.ErrnoException) => error.code ?? "unreadable",
	);
}

function stateOf({ dev, ino, size, mtimeMs, ctimeMs }: Stats): string {
	return `${dev} ${ino} ${size} ${mtimeMs} ${ctimeMs}`;
}

import {
	open,
	readdir,
	realpath,
	rename,
	stat,
	unlink,
} from "node:fs/promises";
import path from "node:path";
import { isDeepStrictEqual } from "node:util";
import { findNodeAtLocation, type Node, parseTree } from "jsonc-parser";
import { withMember, withoutItem, withValue } from "../config/jsoncEdit.ts";
import { danglingLink } from "../config/linkTarget.ts";
import { readOrdinaryFile } from "../config/ordinaryFile.ts";
import { unreadable } from "../config/readConfig.ts";
import { BadFileError, FileBusyError, UnwritableFileError } from "../errors.ts";
import { type Lock, releaseLock, takeLock } from "../lock.ts";
import { type KeyEntry, loadKeys, parseKeys } from "./keyFile.ts";
import { readersOf, writeNew } from "./newFile.ts";

/**
 * Changes the keys file: reads it, hands the keys to `change` and writes what
 * it returns. Two processes that change it at once take turns; a crash at any
 * moment leaves the old file or the new one, whole.
 *
 * @param mayCreate whether a file that does not exist counts as one without keys
 * @param change may make what its keys need; nobody else changes the file meanwhile
 * @param takeBack takes that away where the keys are not written, before the next one's turn
 * @throws {BadFileError} if the file on disk is not usable
 * @throws {UnwritableFileError} if it cannot be replaced
 */
export async function changeKeys(
	file: string,
	mayCreate: boolean,
	change: (
		keys: readonly KeyEntry[],
	) => readonly KeyEntry[] | Promise<readonly KeyEntry[]>,
	takeBack?: () => Promise<void>,
): Promise<void> {
	const target = await resolveTarget(file);
	const lock = await acquireLock(target);
	try {
		let keys: readonly KeyEntry[] = [];
		let text = '{\n  "keys": []\n}\n';
		try {
			keys = await loadKeys(target);
			({ text } = await readOrdinaryFile(target));
		} catch (error) {
			if (!mayCreate || (await exists(target))) throw error;
		}
		try {
			await replaceFile(target, withKeys(text, keys, await change(keys)));
		} catch (error) {
			await takeBack?.();
			throw error;
		}
		await forceToDisk(path.dirname(target));
	} finally {
		await releaseLock(lock);
	}
}

/** A keys file with other keys in it. What a person has written beside them, such as a comment, stays. */
function withKeys(
	text: string,
	before: readonly KeyEntry[],
	after: readonly KeyEntry[],
): string {
	let edited = text;
	const edit = (how: (text: string, list: Node) => string) => {
		const tree = parseTree(edited);
		const list = tree && findNodeAtLocation(tree, ["keys"]);
		if (list !== undefined) edited = how(edited, list);
	};
	const kept = new Set(after.map(({ name }) => name));
	const left = before.filter(({ name }) => kept.has(name));
	for (const [index, { name }] of [...before.entries()].reverse())
		if (!kept.has(name)) edit((text, list) => withoutItem(text, list, index));
	for (const [index, entry] of after.entries()) {
		if (isDeepStrictEqual(entry, left[index])) continue;
		edit((text, list) => {
			const old = list.children?.[index];
			return old === undefined
				? withMember(text, list, undefined, entry)
				: withValue(text, old, entry);
		});
	}
	try {
		if (isDeepStrictEqual(parseKeys(edited, ""), plain(after))) return edited;
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
	}
	// The keys count for more than what is beside them.
	return `${JSON.stringify({ keys: after }, undefined, 2)}\n`;
}

/** As it comes back from a file. */
function plain<T>(value: T): T {
	return JSON.parse(JSON.stringify(value)) as T;
}

async function exists(file: string): Promise<boolean> {
	return stat(file).then(
		() => true,
		({ code }: NodeJS.ErrnoException) => code !== "ENOENT",
	);
}

/** Where the file really lies, or would, so that a symbolic link stays one. @throws {BadFileError} if a link leads to nothing */
async function resolveTarget(file: string): Promise<string> {
	try {
		return await realpath(file);
	} catch {
		const dangling = await danglingLink(file);
		if (dangling !== undefined)
			throw new BadFileError(file, [{ path: "", message: dangling }]);
		try {
			return path.join(await realpath(path.dirname(file)), path.basename(file));
		} catch (error) {
			throw unreadable(path.dirname(file), error, "Make the directory first.");
		}
	}
}

/** Waits for its turn at the file. */
async function acquireLock(target: string): Promise<Lock> {
	const deadline = performance.now() + 30_000;
	for (;;) {
		const lock = await takeLock("keys", target);
		if (typeof lock !== "string") return lock;
		if (lock !== "EADDRINUSE" || performance.now() > deadline)
			throw new FileBusyError(
				`cannot lock ${target} (${lock}): is another llamagate keys command hanging?`,
			);
		await new Promise((resolve) => setTimeout(resolve, 5 + Math.random() * 20));
	}
}

const temporaryPrefix = (target: string) => `.${path.basename(target)}.new-`;

/** Writes beside the file, forces that to disk and renames it over the old one (rename(2) is atomic). */
async function replaceFile(target: string, text: string): Promise<void> {
	const directory = path.dirname(target);
	const temporary = path.join(
		directory,
		`${temporaryPrefix(target)}${process.pid}`,
	);
	try {
		await removeLeftovers(target);
		await writeNew(temporary, await readersOf(target), text);
		await rename(temporary, target);
	} catch (error) {
		// Where even that fails, the next command does it.
		await unlink(temporary).catch(() => {});
		throw new UnwritableFileError(target, error as NodeJS.ErrnoException);
	}
}

/** The names in a directory: what was renamed there is still so after a power cut. */
async function forceToDisk(directory: string): Promise<void> {
	const handle = await open(directory, "r");
	try {
		await handle.sync();
	} finally {
		await handle.close();
	}
}

/** What a command that was killed has left; nobody else writes now, since the lock is ours. */
async function removeLeftovers(target: string): Promise<void> {
	const directory = path.dirname(target);
	for (const name of await readdir(directory))
		if (name.startsWith(temporaryPrefix(target)))
			await unlink(path.join(directory, name));
}

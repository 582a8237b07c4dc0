import type { Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import path from "node:path";
import { userName } from "../config/readConfig.ts";
import { isForServiceGroup } from "../config/secretFile.ts";

/** Who a file is for: its owner, and by its mode its group and all others. */
export interface Readers {
	readonly uid: number;
	readonly gid: number;
	/** 0600, with what the group and all others may read. */
	readonly mode: number;
	/** Whether somebody is shut out where it is not just so. */
	readonly isOwed: boolean;
}

/**
 * Who may read the file goes on to read it: the daemon's user, its group, or
 * everybody. That everybody may is for `llamagate check` to say; to mend it here
 * would shut a daemon out of which nothing is known.
 */
export async function readersOf(target: string): Promise<Readers> {
	const before = await stat(target).catch(() => undefined);
	if (before === undefined) return readersOfNew(target);
	const { uid, gid, mode } = before;
	return { uid, gid, mode: 0o600 | (mode & 0o044), isOwed: true };
}

/**
 * Whose a file is that nobody reads yet, and that others are not to read: as the
 * one beside it, or as their folder.
 *
 * @param like where it does not exist, its folder counts
 */
export async function readersOfNew(like: string): Promise<Readers> {
	const { uid, gid, mode } = await stat(like).catch(() =>
		stat(path.dirname(like)),
	);
	const isForGroup = isRoot() && isForServiceGroup({ uid, gid, mode });
	return { uid, gid, mode: isForGroup ? 0o640 : 0o600, isOwed: false };
}

function isRoot(): boolean {
	return process.getuid?.() === 0;
}

/**
 * Writes a new file and forces it to disk. Nothing is in it before it is for its
 * readers alone.
 *
 * @throws where those who are owed it could not read it
 */
export async function writeNew(
	file: string,
	readers: Readers,
	text: string,
): Promise<void> {
	// Node's permission model, under which the container's image runs, lets nobody
	// change the mode or the owner of an open file.
	const isFixed = process.permission !== undefined;
	const handle = await open(file, "wx", isFixed ? readers.mode : 0o600);
	try {
		const made = await handle.stat();
		if (isRoot() ? isForOthers(made, readers) : isMissed(made, readers))
			await giveTo(handle, readers);
		if ((made.mode & 0o777) !== readers.mode) await handle.chmod(readers.mode);
		await handle.writeFile(text);
		await handle.sync();
	} finally {
		await handle.close();
	}
}

function isForOthers(made: Stats, { uid, gid }: Readers): boolean {
	return made.uid !== uid || made.gid !== gid;
}

/** Whether somebody who is owed a file could not read it, were it left to who made it. */
function isMissed(made: Stats, { uid, gid, mode, isOwed }: Readers): boolean {
	if (!isOwed || (mode & 0o004) !== 0) return false;
	// In root's group is nobody but root, as a rule, who reads everything.
	const isGroupMissed = gid !== 0 && made.gid !== gid && (mode & 0o040) !== 0;
	return made.uid !== uid || isGroupMissed;
}

async function giveTo(
	handle: FileHandle,
	{ uid, gid }: Readers,
): Promise<void> {
	try {
		await handle.chown(uid, gid);
	} catch (error) {
		const { code } = error as NodeJS.ErrnoException;
		throw Object.assign(
			new Error(
				`the user ${uid} or the group ${gid} would no longer read it, and the user ${userName()} may not give it to them; use sudo`,
			),
			{ code },
		);
	}
}

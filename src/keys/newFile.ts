import type { Stats } from "node:fs";
import { type FileHandle, open, stat } from "node:fs/promises";
import path from "node:path";
import { userName } from "../config/readConfig.ts";
import { isForServiceGroup } from "../config/secretFile.ts";
import { runProgram } from "../system/run.ts";

/** Who a file is for: its owner, and by its mode its group and all others. */
export interface Readers {
	readonly uid: number;
	readonly gid: number;
	/** 0600, with what the group and all others may read. */
	readonly mode: number;
	/** Whether somebody is shut out where it is not just so. */
	readonly isOwed: boolean;
	/** The file whose access list (acl(5)) it gets, if that has one. */
	readonly listedBy: string | undefined;
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
	// Beside a list these bits are the most that it gives, not what the group may.
	const listedBy = (mode & 0o040) === 0 ? undefined : target;
	return { uid, gid, mode: 0o600 | (mode & 0o044), isOwed: true, listedBy };
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
	return {
		...{ uid, gid, mode: isForGroup ? 0o640 : 0o600 },
		...{ isOwed: false, listedBy: undefined },
	};
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
		// The image, which has no programs, keeps no list.
		if (readers.listedBy !== undefined && !isFixed)
			await copyAccessList(readers.listedBy, handle);
		const { mode } = await handle.stat();
		if ((mode & 0o777) !== readers.mode) await handle.chmod(readers.mode);
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

/**
 * Gives an open file the mode and the access list of another, or none where that
 * has none. Node knows nothing of lists. A `cp` other than that of GNU is let go:
 * hosts that have such a one have hardly ever a list.
 */
async function copyAccessList(from: string, to: FileHandle): Promise<void> {
	// Who else may write to the folder can put another file in this one's place,
	// but not behind what is open.
	const opened = `/proc/${process.pid}/fd/${to.fd}`;
	const { code, stderr } = await runProgram([
		...["cp", "--attributes-only", "--preserve=mode", "--", from, opened],
	]);
	if (code === 0 || code === 127 || /unrecognized option/.test(stderr)) return;
	throw Object.assign(
		new Error(
			`its access list cannot be kept: ${stderr.trim()}; give the file to the daemon's group, and take its list away with setfacl -b`,
		),
		{ code: "ENOTSUP" },
	);
}

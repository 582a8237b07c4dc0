import type { Stats } from "node:fs";
import path from "node:path";
import { BadFileError } from "../errors.ts";
import { readOrdinaryFile } from "./ordinaryFile.ts";
import { formatMode, unreadable } from "./readConfig.ts";

type Access = Pick<Stats, "uid" | "gid" | "mode">;

/** Who reads. */
export interface Reader {
	readonly uid: number;
	/** All of its groups. */
	readonly gids: readonly number[];
}

/** Whether a file is root's for a daemon's group to read, as setup leaves them. */
export function isForServiceGroup({ uid, gid, mode }: Access): boolean {
	return uid === 0 && gid !== 0 && (mode & 0o040) !== 0;
}

/**
 * Why a file may not hold a secret. There is one rule for all of them: it is
 * root's or the reader's own, nobody else writes it, and nobody else reads it but
 * a group of the reader's, where root has given it to that one. Root itself looks
 * at files for daemons of other users and groups, so to it those are good.
 *
 * What systemd hands to a unit lies in a folder that is the unit's alone, and the
 * mask of an access list looks like a group there, 0440 (systemd.exec, Credentials).
 *
 * @param file absolute, where systemd may have handed it over
 * @returns `undefined` if it is one, or else a sentence without an end
 */
export function exposureOf(
	file: string,
	{ uid, gid, mode }: Access,
	reader: Reader = thisProcess(),
): string | undefined {
	const isRoot = reader.uid === 0;
	if (uid !== 0 && uid !== reader.uid && !isRoot)
		return `it belongs to the user ${uid}, who is neither root nor the user ${reader.uid} that reads it`;
	const handedTo = process.env.CREDENTIALS_DIRECTORY;
	const isHandedOver =
		handedTo !== undefined && path.dirname(file) === path.resolve(handedTo);
	if (isHandedOver && (mode & 0o337) === 0) return undefined;
	const isForReader =
		uid === 0 && gid !== 0 && (isRoot || reader.gids.includes(gid));
	const allowed = isForReader ? 0o740 : 0o700;
	if ((mode & 0o777 & ~allowed) === 0) return undefined;
	return `others than its owner may read or write it (mode ${formatMode(mode)})`;
}

/** What to do about a file that others than its readers may read; a daemon's group goes on reading it. */
export function repairOf(stats: Access): string {
	return `run chmod ${isForServiceGroup(stats) ? "640" : "600"} on it`;
}

function thisProcess(): Reader {
	const { getuid, getgid, getgroups } = process;
	return {
		uid: getuid?.() ?? 0,
		gids: [getgid?.() ?? 0, ...(getgroups?.() ?? [])],
	};
}

/**
 * Reads a file that holds a secret.
 *
 * @param missing what to do where it cannot be read
 * @param repair what to do where it may not hold a secret (`exposureOf`)
 * @returns its text, as it is
 * @throws {BadFileError} if it cannot be read, or if others may read or write it
 */
export async function readSecretFile(
	file: string,
	missing: string,
	repair?: string,
): Promise<string> {
	const { text, stats } = await readOrdinaryFile(file).catch(
		(error: unknown) => {
			throw unreadable(file, error, missing);
		},
	);
	const exposure = exposureOf(file, stats);
	if (exposure !== undefined)
		throw new BadFileError(file, [
			{ path: "", message: `${exposure}; ${repair ?? repairOf(stats)}` },
		]);
	return text;
}

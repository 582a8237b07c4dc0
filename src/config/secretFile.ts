import type { Stats } from "node:fs";
import { BadFileError } from "../errors.ts";
import { readOrdinaryFile } from "./ordinaryFile.ts";
import { formatMode, unreadable } from "./readConfig.ts";

/** Whether a file is root's for a daemon's group to read, as setup leaves them. */
export function isForServiceGroup({
	uid,
	gid,
	mode,
}: Pick<Stats, "uid" | "gid" | "mode">): boolean {
	return uid === 0 && gid !== 0 && (mode & 0o040) !== 0;
}

/** Whether others than a file's owner, or the daemon's group where root is that, may read or write it. */
export function isOpenToOthers(
	stats: Pick<Stats, "uid" | "gid" | "mode">,
): boolean {
	const allowed = isForServiceGroup(stats) ? 0o740 : 0o700;
	return (stats.mode & 0o777 & ~allowed) !== 0;
}

/**
 * Reads a file that holds a secret: nobody but its owner may read it, and one of
 * root's may be shown to the daemon's group.
 *
 * @param missing what to do where it cannot be read
 * @param repair what to do where others may
 * @returns its text, as it is
 * @throws {BadFileError} if it cannot be read, or if others may
 */
export async function readSecretFile(
	file: string,
	missing: string,
	repair = "run chmod 600 on it",
): Promise<string> {
	const { text, stats } = await readOrdinaryFile(file).catch(
		(error: unknown) => {
			throw unreadable(file, error, missing);
		},
	);
	if (isOpenToOthers(stats))
		throw new BadFileError(file, [
			{
				path: "",
				message: `others than its owner may read or write it (mode ${formatMode(stats.mode)}); ${repair}`,
			},
		]);
	return text;
}

import type { Stats } from "node:fs";

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

import { createHash } from "node:crypto";
import {
	chmod,
	chown,
	lstat,
	mkdir,
	open,
	readFile,
	readlink,
	rename,
	rm,
	rmdir,
	symlink,
} from "node:fs/promises";
import path from "node:path";

/** What stood at a path: enough to put it back. */
export type Snapshot =
	| { readonly path: string; readonly kind: "nothing" }
	| ({
			readonly path: string;
			readonly kind: "file";
			/** SHA-256 of its bytes, under which the journal keeps them. */
			readonly sha256: string;
	  } & Held)
	| ({ readonly path: string; readonly kind: "directory" } & Held)
	| {
			readonly path: string;
			readonly kind: "link";
			readonly target: string;
	  };

interface Held {
	readonly uid: number;
	readonly gid: number;
	readonly mode: number;
}

/** Looks at a path. `content` comes with a file. */
export async function takeSnapshot(
	file: string,
): Promise<{ snapshot: Snapshot; content?: Buffer }> {
	const stats = await lstat(file).catch((error: NodeJS.ErrnoException) => {
		if (error.code === "ENOENT" || error.code === "ENOTDIR") return undefined;
		throw error;
	});
	if (stats === undefined) return { snapshot: { path: file, kind: "nothing" } };
	const { uid, gid } = stats;
	const mode = stats.mode & 0o7777;
	if (stats.isSymbolicLink())
		return {
			snapshot: { path: file, kind: "link", target: await readlink(file) },
		};
	if (stats.isDirectory())
		return { snapshot: { path: file, kind: "directory", uid, gid, mode } };
	if (!stats.isFile())
		throw new Error(`${file} is neither a file nor a directory`);
	const content = await readFile(file);
	const sha256 = digestOf(content);
	return {
		snapshot: { path: file, kind: "file", sha256, uid, gid, mode },
		content,
	};
}

/** SHA-256, in hex. */
export function digestOf(content: string | Buffer): string {
	return createHash("sha256").update(content).digest("hex");
}

/** Whether two looks at the same path saw the same bytes, whoever owns them, or the same kind of thing. */
export function holdsSame(a: Snapshot, b: Snapshot): boolean {
	if (a.kind === "file" && b.kind === "file") return a.sha256 === b.sha256;
	if (a.kind === "link" && b.kind === "link") return a.target === b.target;
	return a.kind === b.kind;
}

/** Whether two looks at the same path saw the same. */
export function sameSnapshot(a: Snapshot, b: Snapshot): boolean {
	return JSON.stringify(a) === JSON.stringify(b);
}

/**
 * Puts back what stood at a path. A directory that has come to hold something
 * else since is left.
 *
 * @param contentOf gives the bytes of a digest
 * @returns whether it is as it was
 */
export async function putBack(
	snapshot: Snapshot,
	contentOf: (sha256: string) => Promise<Buffer>,
): Promise<boolean> {
	const file = snapshot.path;
	switch (snapshot.kind) {
		case "nothing": {
			const { snapshot: now } = await takeSnapshot(file);
			if (now.kind !== "directory") {
				await rm(file, { force: true });
				return true;
			}
			return rmdir(file).then(
				() => true,
				(error: NodeJS.ErrnoException) => {
					if (error.code === "ENOTEMPTY") return false;
					throw error;
				},
			);
		}
		case "directory":
			await mkdir(file, { recursive: true });
			await chown(file, snapshot.uid, snapshot.gid);
			await chmod(file, snapshot.mode);
			return true;
		case "link":
			// Else a kill in between would leave nothing, which is somebody else's doing to the next undo.
			await replaceBy(file, (temporary) => symlink(snapshot.target, temporary));
			return true;
		case "file":
			await replaceFile(file, await contentOf(snapshot.sha256), snapshot);
			return true;
	}
}

/** The name under which a file's successor is written; one that a kill left over is found under it. */
export function temporaryNameOf(file: string): string {
	return path.join(path.dirname(file), `.${path.basename(file)}.llamagate-new`);
}

/** Writes beside the file, forces it to disk and renames it over the old one: there is the old file or the new one, whole. */
export async function replaceFile(
	file: string,
	content: string | Buffer,
	{ uid, gid, mode }: Held,
): Promise<void> {
	await replaceBy(file, async (temporary) => {
		const handle = await open(temporary, "wx", 0o600);
		try {
			await handle.chown(uid, gid);
			await handle.chmod(mode);
			await handle.writeFile(content);
			await handle.sync();
		} finally {
			await handle.close();
		}
	});
}

/** Makes something beside the file and renames it over what is there. */
async function replaceBy(
	file: string,
	make: (temporary: string) => Promise<void>,
): Promise<void> {
	const temporary = temporaryNameOf(file);
	await rm(temporary, { force: true });
	await make(temporary);
	await rename(temporary, file);
	await syncDirectory(path.dirname(file));
}

/** Forces a directory's names to disk. */
export async function syncDirectory(directory: string): Promise<void> {
	const handle = await open(directory, "r");
	try {
		await handle.sync();
	} finally {
		await handle.close();
	}
}

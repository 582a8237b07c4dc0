import { readlink, realpath } from "node:fs/promises";
import path from "node:path";

/** As many links one after the other as the kernel follows (path_resolution(7)). */
const maxLinks = 40;

/**
 * Why nothing may be made in a file's place, although it cannot be found: it is a
 * symbolic link to what is not there, such as a disk that is not mounted. A new
 * file would take the link's place, and what the link leads to would be out of use.
 *
 * @returns `undefined` where there is no link, or else a sentence without an end
 */
export async function danglingLink(file: string): Promise<string | undefined> {
	let at = file;
	for (let links = 0; links < maxLinks; links++) {
		let target: string;
		try {
			target = await readlink(at);
		} catch (error) {
			const { code } = error as NodeJS.ErrnoException;
			// No link, and there.
			if (at === file || code === "EINVAL") return undefined;
			return `it is a symbolic link to ${at}, which is ${code === "ENOENT" ? "not there" : `not to be reached (${code})`}; make that available, or remove the link`;
		}
		const folder = path.dirname(at);
		at = path.resolve(await realpath(folder).catch(() => folder), target);
	}
	return "it is a symbolic link that leads back to itself; remove it";
}

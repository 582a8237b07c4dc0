import { constants } from "node:fs";
import { open } from "node:fs/promises";
import { Finding } from "../errors.ts";
import { codeOf } from "../net/errorCode.ts";

/**
 * Writes a page that says where a host is weak, for the file's owner alone, also
 * where others could read the file that was there. What is no file, such as
 * /dev/stdout, keeps its mode.
 *
 * @throws {Finding} if it cannot be written; a file that was there is then as it was, or no longer for others
 */
export async function writePage(file: string, page: string): Promise<void> {
	try {
		// Shut before the first byte is written.
		const handle = await open(
			file,
			constants.O_WRONLY | constants.O_CREAT,
			0o600,
		);
		try {
			if ((await handle.stat()).isFile()) {
				await handle.chmod(0o600);
				await handle.truncate();
			}
			await handle.writeFile(page);
		} finally {
			await handle.close();
		}
	} catch (error) {
		throw new Finding(`${file} cannot be written (${codeOf(error)})`);
	}
}

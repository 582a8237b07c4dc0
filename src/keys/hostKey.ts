import { readOrdinaryFile } from "../config/ordinaryFile.ts";
import { formatMode, unreadable } from "../config/readConfig.ts";
import { isOpenToOthers } from "../config/secretFile.ts";
import { BadFileError } from "../errors.ts";

/**
 * Reads the key that another host has given this gate. Anyone who has it may use
 * that host, so nobody but its owner may read the file; one of root's may be shown
 * to the daemon's group.
 *
 * @throws {BadFileError} if it cannot be read, if others may, or if it holds no key
 */
export async function loadHostKey(file: string): Promise<string> {
	let text: string;
	try {
		const read = await readOrdinaryFile(file);
		if (isOpenToOthers(read.stats))
			throw bad(
				file,
				`others than its owner may read or write it (mode ${formatMode(read.stats.mode)}); run: chmod 600 ${file}`,
			);
		text = read.text.trim();
	} catch (error) {
		if (error instanceof BadFileError) throw error;
		throw unreadable(
			file,
			error,
			"Make a key on that host (llamagate keys add NAME) and write it there.",
		);
	}
	if (!/^[\x21-\x7e]{16,1024}$/.test(text))
		throw bad(
			file,
			"holds no key: one line of 16 to 1024 letters, digits and signs",
		);
	return text;
}

function bad(file: string, message: string): BadFileError {
	return new BadFileError(file, [{ path: "", message }]);
}

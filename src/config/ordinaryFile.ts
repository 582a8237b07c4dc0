import { constants, type Stats } from "node:fs";
import { open } from "node:fs/promises";

/** No file of settings or keys is larger: a hundred thousand keys take some 30 MiB. */
const maxBytes = 64 * 2 ** 20;

/** Something that is not a file to be read whole: a pipe has no end, and nobody may ever write to it. */
export class NoOrdinaryFile extends Error {
	readonly code = "LLAMAGATE_NO_ORDINARY_FILE";
}

/**
 * Reads a file that people write, and nothing else: not a pipe, which would have
 * one wait for ever, nor a device.
 *
 * @throws {NoOrdinaryFile} for anything else, and for a file of more than 64 MiB
 */
export async function readOrdinaryFile(
	file: string,
): Promise<{ text: string; stats: Stats }> {
	// Without O_NONBLOCK, opening a pipe waits for a writer.
	const handle = await open(file, constants.O_RDONLY | constants.O_NONBLOCK);
	try {
		const stats = await handle.stat();
		if (!stats.isFile()) throw new NoOrdinaryFile("is not an ordinary file");
		if (stats.size > maxBytes)
			throw new NoOrdinaryFile(`has more than ${maxBytes / 2 ** 20} MiB`);
		return { text: await handle.readFile("utf8"), stats };
	} finally {
		await handle.close();
	}
}

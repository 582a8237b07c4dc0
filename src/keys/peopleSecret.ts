import { randomBytes } from "node:crypto";
import { link, lstat, unlink } from "node:fs/promises";
import path from "node:path";
import { readSecretFile } from "../config/secretFile.ts";
import { BadFileError, UnwritableFileError } from "../errors.ts";
import { readersOfNew, writeNew } from "./newFile.ts";
import { bitsOf } from "./newKey.ts";

/** A shorter one could be found from a token (RFC 7518, 3.2: as long as the hash). */
const leastBits = 256;

/**
 * Reads the secret that an app signs with. What is signed with it is believed,
 * so nobody but its owner may read the file; one of root's may be shown to the
 * daemon's group.
 *
 * @returns the bytes that sign: those of the text, as the app has it in its settings
 * @throws {BadFileError} if it cannot be read, if others may, or if it is too weak
 */
export async function loadPeopleSecret(
	file: string,
): Promise<Uint8Array<ArrayBuffer>> {
	const text = (
		await readSecretFile(
			file,
			"Make one with: llamagate keys add NAME --people open-webui",
		)
	).trim();
	const weakness = secretWeaknessOf(text);
	if (weakness !== undefined)
		throw new BadFileError(file, [{ path: "", message: weakness }]);
	return new TextEncoder().encode(text);
}

/**
 * Makes a secret where there is none. The file is there whole or not at all,
 * whatever happens meanwhile.
 *
 * @param like whose owner gets it, and whose group where that is the daemon's: the keys file, or itself for its folder's owner
 * @throws {UnwritableFileError} if it cannot be written
 */
export async function makePeopleSecret(
	file: string,
	like: string,
): Promise<"made" | "kept"> {
	// Who may not write here may still use the one that is there.
	const isThere = await lstat(file).then(
		() => true,
		() => false,
	);
	if (isThere) return "kept";
	const temporary = path.join(
		path.dirname(file),
		`.${path.basename(file)}.new-${randomBytes(6).toString("hex")}`,
	);
	try {
		await writeNew(
			temporary,
			await readersOfNew(like),
			`${randomBytes(32).toString("hex")}\n`,
		);
		// Unlike rename(2) it does not replace what another command has made meanwhile.
		await link(temporary, file);
		return "made";
	} catch (error) {
		if ((error as NodeJS.ErrnoException).code === "EEXIST") return "kept";
		throw new UnwritableFileError(file, error as NodeJS.ErrnoException);
	} finally {
		// Where nothing was written there is nothing to take away.
		await unlink(temporary).catch(() => {});
	}
}

/** Why a text is not a secret to sign with, or `undefined` if it is one. */
export function secretWeaknessOf(text: string): string | undefined {
	if (!/^[\x21-\x7e]+$/.test(text))
		return "holds no secret: one line of letters, digits and signs; make one with: openssl rand -hex 32";
	if (text.length > 1024) return "holds more than 1024 characters";
	const bits = bitsOf(text);
	return bits < leastBits || new Set(text).size < 8
		? `holds fewer than ${leastBits} bits (about ${bits} by its length); make one with: openssl rand -hex 32`
		: undefined;
}

import { readSecretFile } from "../config/secretFile.ts";
import { BadFileError } from "../errors.ts";

/**
 * Reads the key that another host has given this gate. Anyone who has it may use
 * that host, so nobody but its owner may read the file; one of root's may be shown
 * to the daemon's group.
 *
 * @throws {BadFileError} if it cannot be read, if others may, or if it holds no key
 */
export async function loadHostKey(file: string): Promise<string> {
	const text = (
		await readSecretFile(
			file,
			"Make a key on that host (llamagate keys add NAME) and write it there.",
		)
	).trim();
	if (!/^[\x21-\x7e]{16,1024}$/.test(text))
		throw new BadFileError(file, [
			{
				path: "",
				message:
					"holds no key: one line of 16 to 1024 letters, digits and signs",
			},
		]);
	return text;
}

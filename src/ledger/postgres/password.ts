import { readSecretFile } from "../../config/secretFile.ts";
import { BadFileError, Finding } from "../../errors.ts";

/**
 * Reads the database's password anew, as it may have been changed.
 *
 * @throws {Finding} if there is none, if it cannot be read, or if others may
 */
export async function readPassword(file: string | undefined): Promise<string> {
	if (file === undefined)
		throw new Finding(
			"the database asks for a password; write it into a file of mode 0600, and name that with ledger.passwordFile",
		);
	let text: string;
	try {
		text = await readSecretFile(
			file,
			"Write the database's password there; ledger.passwordFile names it.",
		);
	} catch (error) {
		// The ledger tries it again, so this is nothing that its start depends on.
		if (error instanceof BadFileError) throw new Finding(error.message);
		throw error;
	}
	const password = text.replace(/\r?\n$/, "");
	if (password === "" || /[\r\n\0]/.test(password))
		throw new Finding(
			`${file} is to hold the database's password, one line, and nothing else`,
		);
	return password;
}

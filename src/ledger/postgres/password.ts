import path from "node:path";
import { readOrdinaryFile } from "../../config/ordinaryFile.ts";
import { Finding } from "../../errors.ts";

/**
 * Reads the database's password anew, as it may have been changed. Nobody but its
 * owner may have the file; what systemd hands to its unit is the unit's alone.
 *
 * @throws {Finding} if there is none, if it cannot be read, or if others may
 */
export async function readPassword(file: string | undefined): Promise<string> {
	if (file === undefined)
		throw new Finding(
			"the database asks for a password; write it into a file of mode 0600, and name that with ledger.passwordFile",
		);
	const credentials = process.env.CREDENTIALS_DIRECTORY;
	const isHandedOver =
		credentials !== undefined && path.dirname(file) === credentials;
	let read: Awaited<ReturnType<typeof readOrdinaryFile>>;
	try {
		read = await readOrdinaryFile(file);
	} catch (error) {
		const { code, message } = error as NodeJS.ErrnoException;
		throw new Finding(
			`cannot read ${file}, the database's password (${code ?? message}); see ledger.passwordFile`,
		);
	}
	if (!isHandedOver && (read.stats.mode & 0o077) !== 0)
		throw new Finding(
			`others than its owner may read or write ${file}, the database's password; run chmod 600 on it`,
		);
	const password = read.text.replace(/\r?\n$/, "");
	if (password === "" || /[\r\n\0]/.test(password))
		throw new Finding(
			`${file} is to hold the database's password, one line, and nothing else`,
		);
	return password;
}

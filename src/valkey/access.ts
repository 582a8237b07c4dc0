import { readOrdinaryFile } from "../config/ordinaryFile.ts";
import { unreadable } from "../config/readConfig.ts";
import { readSecretFile } from "../config/secretFile.ts";
import type { StateSettings } from "../config/state.ts";
import { BadFileError } from "../errors.ts";

/** What the files that `state` names hold. */
export interface StateAccess {
	readonly password: string | undefined;
	/** PEM, of the one who signs Valkey's certificate. */
	readonly ca: string | undefined;
}

export const noStateAccess: StateAccess = {
	password: undefined,
	ca: undefined,
};

/**
 * Reads the password for Valkey and the certificate that its own is checked with.
 * Nobody but the password's owner may read it; one of root's may be shown to the
 * daemon's group.
 *
 * @throws {BadFileError} if either cannot be read, if others may read the
 * password, or if there is none in it
 */
export async function loadStateAccess(
	state: StateSettings | undefined,
): Promise<StateAccess> {
	const { passwordFile, caFile } = state ?? {};
	return {
		password:
			passwordFile === undefined ? undefined : await loadPassword(passwordFile),
		ca: caFile === undefined ? undefined : await loadCa(caFile),
	};
}

async function loadPassword(file: string): Promise<string> {
	const text = (
		await readSecretFile(
			file,
			"Write the password of Valkey's user there, and run chmod 600 on it.",
		)
	).trim();
	if (!/^[\x21-\x7e]{1,1024}$/.test(text))
		throw bad(
			file,
			"holds no password: one line of letters, digits and signs; make one with: openssl rand -hex 32",
		);
	return text;
}

async function loadCa(file: string): Promise<string> {
	const { text } = await readOrdinaryFile(file).catch((error: unknown) => {
		throw unreadable(
			file,
			error,
			"Copy the certificate there that signs Valkey's.",
		);
	});
	if (!text.includes("-----BEGIN CERTIFICATE-----"))
		throw bad(file, "holds no certificate in PEM");
	return text;
}

function bad(file: string, message: string): BadFileError {
	return new BadFileError(file, [{ path: "", message }]);
}

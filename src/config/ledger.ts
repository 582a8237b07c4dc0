import { existsSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { parseDuration } from "../duration.ts";
import { type DatabasePlace, readDatabaseUrl } from "./databaseUrl.ts";
import type { ConfigFile } from "./schema.ts";

/** Where usage is kept. */
export interface LedgerSettings {
	/** Absolute, as is the next. */
	readonly file: string;
	readonly socket: string;
	readonly retentionMs: number;
	/** By what records of this gate are told from those of others. */
	readonly gate: string;
	/** In place of the file. */
	readonly database: DatabasePlace | undefined;
}

/** What systemd hands to the ledger's unit, under these names (docs/usage.md). */
export const passwordCredential = "ledger-password";
export const caCredential = "ledger-ca";

/**
 * @param fileIsGiven in the configuration, not by default
 * @param configFile where files are looked for, unless systemd says
 * @returns `undefined` where nothing is kept
 */
export function readLedger(
	given: ConfigFile["ledger"],
	fileIsGiven: boolean,
	configFile: string,
	refuse: (where: string[], message: string) => void,
): LedgerSettings | undefined {
	if (given === undefined) return undefined;
	const folder = process.env.STATE_DIRECTORY ?? path.dirname(configFile);
	const { url, passwordFile } = given;
	const database = url === undefined ? undefined : readDatabaseUrl(url);
	// A password in it is not shown.
	if (typeof database === "string") refuse(["ledger", "url"], database);
	if (url !== undefined && fileIsGiven)
		refuse(["ledger"], "has both a file and a url; keep one");
	if (url === undefined && passwordFile !== undefined)
		refuse(["ledger", "passwordFile"], "is for a database, and url is missing");
	return {
		file: path.resolve(folder, given.file),
		socket: path.resolve(path.dirname(configFile), given.socket),
		// The schema's pattern has been checked before.
		retentionMs: parseDuration(given.retention) ?? 0,
		gate: given.gate ?? hostname(),
		database:
			database === undefined || typeof database === "string"
				? undefined
				: {
						database: {
							...database,
							caFile: handedOver(caCredential) ?? database.caFile,
						},
						passwordFile:
							handedOver(passwordCredential) ??
							(passwordFile &&
								path.resolve(path.dirname(configFile), passwordFile)),
					},
	};
}

/** The file of that name that systemd has handed to this process's unit. */
function handedOver(name: string): string | undefined {
	const folder = process.env.CREDENTIALS_DIRECTORY;
	if (folder === undefined) return undefined;
	const file = path.join(folder, name);
	return existsSync(file) ? file : undefined;
}

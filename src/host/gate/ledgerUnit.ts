import { readdir } from "node:fs/promises";
import { isIP } from "node:net";
import {
	caCredential,
	type LedgerSettings,
	passwordCredential,
} from "../../config/ledger.ts";
import { Finding } from "../../errors.ts";
import { readPassword } from "../../ledger/postgres/password.ts";
import type { CommandAction } from "../../setup/step.ts";
import type { Unit } from "../../system/units.ts";

export const ledgerUnit = "llamagate-ledger.service";
/** What it keeps; the unit has it lead to a folder of systemd's, as its user is there while it runs. */
export const ledgerFolder = "/var/lib/llamagate-ledger";
const privateFolder = "/var/lib/private/llamagate-ledger";
/** What lets the ledger reach its database, and nothing else. */
export const ledgerDropIn = `/etc/systemd/system/${ledgerUnit}.d/llamagate-database.conf`;

/**
 * What of the unit's sandbox is between the ledger and its database: a way
 * there, and files of root's that systemd hands over.
 *
 * @returns nothing where the ledger has a file
 */
export function dropInOf(ledger: LedgerSettings | undefined): string {
	if (ledger?.database === undefined) return "";
	const { database, passwordFile } = ledger.database;
	const { host, caFile } = database;
	const handed = (name: string, file: string | undefined) =>
		file === undefined
			? []
			: [`LoadCredential=${name}:${file.replaceAll("%", "%%")}`];
	const way = host.startsWith("/")
		? [`BindReadOnlyPaths=${host.replaceAll("%", "%%")}`]
		: [
				"PrivateNetwork=no",
				"RestrictAddressFamilies=AF_INET AF_INET6",
				...(isIP(host) === 0
					? [
							"# Which address a name has is known when it is looked up.",
							"IPAddressDeny=",
							"BindReadOnlyPaths=-/etc/resolv.conf -/etc/hosts -/etc/nsswitch.conf",
						]
					: [`IPAddressAllow=${host}`]),
			];
	return [
		"# Written by llamagate setup for ledger.url: the way to the database, and what opens it.",
		"[Service]",
		...way,
		...handed(passwordCredential, passwordFile),
		...handed(caCredential, caFile),
		"",
	].join("\n");
}

/** Why systemd could not hand the ledger what opens its database; `undefined` if it can. */
export async function databaseObstacle(
	ledger: LedgerSettings | undefined,
): Promise<string | undefined> {
	if (ledger?.database === undefined) return undefined;
	const { database, passwordFile } = ledger.database;
	// A line of a unit would read it otherwise.
	for (const file of [passwordFile, database.caFile, database.host])
		if (file !== undefined && /[\s"'\\:]/.test(file) && file.startsWith("/"))
			return `${file} has a sign in its name that a unit would misread; give it another`;
	if (passwordFile === undefined) return undefined;
	try {
		await readPassword(passwordFile);
		return undefined;
	} catch (error) {
		if (error instanceof Finding) return error.message;
		throw error;
	}
}

/**
 * Ends the ledger where the configuration has none: without its section it fails
 * at each start, and systemd gives it up after ten. What it has written stays.
 */
export function endLedger(
	unit:
		| Pick<Unit, "isActive" | "isEnabled" | "isMasked" | "isFailed">
		| undefined,
): CommandAction[] {
	if (unit === undefined || unit.isMasked) return [];
	const { isActive, isEnabled, isFailed } = unit;
	const actions: CommandAction[] = [];
	if (isActive || isEnabled) {
		// First, so that a gate that still has it hands over what is left.
		actions.push({
			kind: "command",
			command: ["systemctl", "try-restart", "llamagate.service"],
		});
		actions.push({
			kind: "command",
			command: ["systemctl", "disable", "--now", ledgerUnit],
			undo: [
				...(isEnabled ? [["systemctl", "enable", ledgerUnit]] : []),
				...(isActive ? [["systemctl", "start", ledgerUnit]] : []),
			],
		});
	}
	if (isFailed)
		actions.push({
			kind: "command",
			command: ["systemctl", "reset-failed", ledgerUnit],
		});
	return actions;
}

/** Where what the ledger has written stays when setup is taken back, if it has written anything. */
export async function keptRecords(): Promise<string[]> {
	const names = await readdir(privateFolder).catch(() => []);
	return names.length > 0 ? [privateFolder] : [];
}

import path from "node:path";
import { withBridges } from "../config/bridges.ts";
import { loadConfig, type Settings, typed } from "../config/load.ts";
import { BadFileError } from "../errors.ts";
import { type KeyEntry, loadKeys } from "../keys/keyFile.ts";
import { Keyring } from "../keys/keyring.ts";
import { openWebUiToken } from "../keys/people.ts";
import { loadPeopleSecret } from "../keys/peopleSecret.ts";
import { dayMs } from "../ledger/store.ts";
import type { Certificate } from "../tls/certificate.ts";
import { loadPair, namesFor, noNames } from "../tls/files.ts";
import { loadStateAccess, type StateAccess } from "../valkey/access.ts";
import { loadHostKeys } from "./hostRules.ts";
import { createTokenJudge, type TokenJudge } from "./token.ts";

/** What is in force; replaced whole on a reload. */
export interface Rules {
	readonly settings: Settings;
	readonly keyring: Keyring;
	/** By the names of the keys whose apps sign who is asking. */
	readonly tokenJudges: ReadonlyMap<string, TokenJudge>;
	/** For Valkey, where the settings have one. */
	readonly stateAccess: StateAccess;
	/** What other hosts have given this gate, by the hosts' names. */
	readonly hostKeys: ReadonlyMap<string, string>;
	/** What the files of `listen.tls` held when the settings were read; absent where it names none. */
	readonly certificate: Certificate | undefined;
}

/**
 * Reads the configuration, and the keys and the certificate that it names.
 *
 * @param bridges the folder of the bridges by which a gate without a network
 *   reaches other hosts
 * @throws {BadFileError} if one of them would not load
 */
export async function loadRules(
	configFile: string,
	bridges?: string,
): Promise<Rules> {
	const settings = withBridges(await loadConfig(configFile), bridges);
	const { tls, identity } = settings;
	const certificate =
		tls?.kind === "files"
			? await loadPair(
					tls,
					await namesFor(tls, identity.socket, noNames),
					Date.now(),
				)
			: undefined;
	return withKeysAnew({
		settings,
		certificate,
		hostKeys: await loadHostKeys(settings),
	});
}

/**
 * The same settings, the very object, with the keys as they are in their file now.
 *
 * @throws {BadFileError} if they would not load, or do not go with the settings
 */
export async function withKeysAnew({
	settings,
	hostKeys,
	certificate,
}: Pick<Rules, "settings" | "hostKeys" | "certificate">): Promise<Rules> {
	const { configFile } = settings;
	const { groups } = settings.budgets;
	const keys = await loadKeys(
		settings.keysFile,
		typed("keys add NAME", configFile),
		new Set(Object.keys(groups)),
	);
	const bound = keys.find(({ bind }) => bind !== undefined);
	if (bound !== undefined && settings.identity.mode === "off")
		throw new BadFileError(configFile, [
			{
				path: "identity.mode",
				message: `is "off", and the key "${bound.name}" is bound to devices; set "log" or "require"`,
			},
		]);
	const keyring = await Keyring.gather(keys, groups);
	refuseShortRetention(settings, keyring);
	return {
		settings,
		hostKeys,
		certificate,
		keyring,
		stateAccess: await loadStateAccess(settings.state),
		tokenJudges: await openTokenJudges(keys, path.dirname(settings.keysFile)),
	};
}

/**
 * What is older than the ledger's records is told by whole days of UTC: the first
 * day, week or month of another zone would have hours of the one before in it.
 *
 * @throws {BadFileError} if a budget's time is longer than records are kept
 */
function refuseShortRetention(
	{ configFile, ledger }: Settings,
	keyring: Keyring,
): void {
	if (ledger === undefined) return;
	for (const { account, group, budget } of keyring.budgets.values()) {
		const { per, timezone } = budget;
		const days = longestDays[per];
		if (timezone === "UTC" || ledger.retentionMs >= days * dayMs) continue;
		const whose = group === undefined ? `key "${account}"` : `group "${group}"`;
		throw new BadFileError(configFile, [
			{
				path: "ledger.retention",
				message: `is too short for the ${per} in ${timezone} that the budget of the ${whose} counts; set at least "${days}d", or have the budget count in UTC`,
			},
		]);
	}
}

/** In whole days: clocks may be put back in it. */
const longestDays = { day: 2, week: 8, month: 32 } as const;

/** @throws {BadFileError} if a secret cannot be had, or is too weak */
async function openTokenJudges(
	keys: readonly KeyEntry[],
	folder: string,
): Promise<ReadonlyMap<string, TokenJudge>> {
	const judges = new Map<string, TokenJudge>();
	for (const { name, people } of keys) {
		if (people?.jwt === undefined) continue;
		const { secretFile, issuer = openWebUiToken.issuer } = people.jwt;
		const secret = await loadPeopleSecret(path.resolve(folder, secretFile));
		judges.set(name, await createTokenJudge(secret, issuer));
	}
	return judges;
}

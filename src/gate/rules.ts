import path from "node:path";
import { withBridges } from "../config/bridges.ts";
import { loadConfig, type Settings, typed } from "../config/load.ts";
import { BadFileError } from "../errors.ts";
import { shortRetention } from "../keys/budget.ts";
import { type KeyEntry, loadKeys } from "../keys/keyFile.ts";
import { Keyring } from "../keys/keyring.ts";
import { openWebUiToken } from "../keys/people.ts";
import { loadPeopleSecret } from "../keys/peopleSecret.ts";
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
	/** For Valkey, where the settings have one; used at the start alone. */
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
		stateAccess: await loadStateAccess(settings.state),
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
	stateAccess,
}: Omit<Rules, "keyring" | "tokenJudges">): Promise<Rules> {
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
	const tooShort = shortRetention(
		keyring.budgets.values(),
		settings.ledger?.retentionMs,
	);
	if (tooShort !== undefined)
		throw new BadFileError(configFile, [
			{ path: "ledger.retention", message: tooShort },
		]);
	return {
		settings,
		hostKeys,
		certificate,
		keyring,
		stateAccess,
		tokenJudges: await openTokenJudges(keys, path.dirname(settings.keysFile)),
	};
}

/**
 * The same rules without the digests and public keys that are gone from the keys
 * file: a lost key must go although something else in the file does not load, or
 * does not go with the settings.
 *
 * @returns `undefined` where all are still there
 * @throws {BadFileError} if nobody can tell
 */
export async function withoutGoneKeys(
	rules: Rules,
): Promise<Rules | undefined> {
	const { keysFile, budgets } = rules.settings;
	const left = new Set((await loadKeys(keysFile)).flatMap(idsOf));
	const isLeft = (id: string) => left.has(id);
	if (rules.keyring.ids.every(isLeft)) return undefined;
	const kept = rules.keyring.entries
		.map(({ previous, ...entry }) => ({
			...entry,
			...(previous && {
				previous: previous.filter(({ sha256 }) => isLeft(sha256)),
			}),
		}))
		.filter((entry) => idsOf(entry).every(isLeft));
	return { ...rules, keyring: await Keyring.gather(kept, budgets.groups) };
}

function idsOf({ sha256, ollamaKey, previous = [] }: KeyEntry): string[] {
	const replaced = previous.map((one) => one.sha256);
	return [sha256, ollamaKey, ...replaced].filter((id) => id !== undefined);
}

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

import { loadConfig, type Settings } from "../config/load.ts";
import { BadFileError } from "../config/strictJson.ts";
import { loadKeys } from "../keys/keyFile.ts";
import { Keyring } from "../keys/keyring.ts";

/** What is in force; replaced whole on a reload. */
export interface Rules {
	readonly settings: Settings;
	readonly keyring: Keyring;
}

/**
 * Reads the configuration and the keys that it names.
 *
 * @throws {BadFileError} if either would not load
 */
export async function loadRules(configFile: string): Promise<Rules> {
	const settings = await loadConfig(configFile);
	const keys = await loadKeys(settings.keysFile);
	const bound = keys.find(({ bind }) => bind !== undefined);
	if (bound !== undefined && settings.identity.mode === "off")
		throw new BadFileError(configFile, [
			{
				path: "identity.mode",
				message: `is "off", and the key "${bound.name}" is bound to devices; set "log" or "require"`,
			},
		]);
	return { settings, keyring: new Keyring(keys) };
}

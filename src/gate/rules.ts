import { loadConfig, type Settings, typed } from "../config/load.ts";
import { BadFileError } from "../errors.ts";
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
	return withKeysAnew({ settings });
}

/**
 * The same settings with the keys as they are in their file now.
 *
 * @throws {BadFileError} if they would not load, or do not go with the settings
 */
export async function withKeysAnew({
	settings,
}: Pick<Rules, "settings">): Promise<Rules> {
	const { configFile } = settings;
	const keys = await loadKeys(
		settings.keysFile,
		typed("keys add NAME", configFile),
	);
	const bound = keys.find(({ bind }) => bind !== undefined);
	if (bound !== undefined && settings.identity.mode === "off")
		throw new BadFileError(configFile, [
			{
				path: "identity.mode",
				message: `is "off", and the key "${bound.name}" is bound to devices; set "log" or "require"`,
			},
		]);
	return { settings, keyring: await Keyring.gather(keys) };
}

import path from "node:path";
import { parseTree } from "jsonc-parser";
import { readListen } from "../config/addresses.ts";
import { loadConfig, resolveSocket, type Settings } from "../config/load.ts";
import { readConfig } from "../config/readConfig.ts";
import { type ConfigFile, configSchema, defaultsOf } from "../config/schema.ts";
import { BadFileError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type { Listen } from "../net/listener.ts";
import { askGateOn } from "./client.ts";

/** Where the keys are, and where the running gate is asked. */
export interface Places {
	/** Absolute. */
	readonly keysFile: string;
	/** Absolute; `undefined` where it is off. */
	readonly adminSocket: string | undefined;
	/** Where it would listen by its configuration; `undefined` where a broken one does not tell. */
	readonly listen: Listen | undefined;
	/** What is wrong with the configuration; the running gate goes on with the one it has. */
	readonly broken: BadFileError | undefined;
}

/**
 * Finds both, in a broken configuration too: a mistake in one setting must not
 * keep a lost key from being revoked. The gate that runs with this file tells
 * which keys are in force; without it, the file does as far as it can be read.
 *
 * @throws {BadFileError} if the file cannot be read, if others may write it, or
 *   if it does not tell where the keys are
 */
export async function findPlaces(configFile: string): Promise<Places> {
	// What others may write they may have lead anywhere.
	const text = await readConfig(configFile);
	try {
		return placesOf(await loadConfig(configFile));
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return findInBroken(text, configFile, error);
	}
}

/** Those of a configuration that loads. */
export function placesOf({ keysFile, admin, listen }: Settings): Places {
	return { keysFile, adminSocket: admin.socket, listen, broken: undefined };
}

async function findInBroken(
	text: string,
	configFile: string,
	broken: BadFileError,
): Promise<Places> {
	const tree = parseTree(text.replace(/^\uFEFF/, ""));
	/** A setting, the last of its name. */
	const valueAt = (...names: string[]): unknown => {
		let node = tree;
		for (const name of names)
			node = node?.children?.findLast(
				({ children = [] }) => children[0]?.value === name,
			)?.children?.[1];
		return node?.value;
	};
	const settingAt = (...names: string[]) => {
		const value = valueAt(...names);
		return typeof value === "string" ? value : undefined;
	};
	const defaults = defaultsOf(configSchema) as {
		keysFile: string;
		admin: { socket: string };
		listen: ConfigFile["listen"];
	};
	const adminSocket = resolveSocket(
		configFile,
		settingAt("admin", "socket") ?? defaults.admin.socket,
	);
	const listen = listenOf(valueAt, defaults.listen);
	if (adminSocket !== undefined) {
		const asked = await askGateOn(adminSocket);
		if (
			asked.kind === "status" &&
			asked.status.files?.config === path.resolve(configFile)
		)
			return {
				keysFile: asked.status.files.keys,
				...{ adminSocket, listen, broken },
			};
	}
	const named = settingAt("keysFile");
	const misspelt = (tree?.children ?? []).some(
		({ children = [] }) =>
			nearest(String(children[0]?.value), ["keysFile"]) !== undefined,
	);
	if (named === undefined && (tree?.type !== "object" || misspelt))
		throw broken;
	return {
		keysFile: path.resolve(
			path.dirname(configFile),
			named ?? defaults.keysFile,
		),
		...{ adminSocket, listen, broken },
	};
}

/**
 * Where a gate would listen, as far as a broken file tells; `undefined` where
 * what it says of that is wrong, or missing: it may be what is misspelt.
 */
function listenOf(
	valueAt: (...names: string[]) => unknown,
	defaults: ConfigFile["listen"],
): Listen | undefined {
	const address = valueAt("listen", "address");
	const device = valueAt("listen", "interface");
	const port = valueAt("listen", "port") ?? defaults.port;
	if (address === undefined && device === undefined) return undefined;
	for (const text of [address, device])
		if (text !== undefined && typeof text !== "string") return undefined;
	if (!(Number.isInteger(port) && Number(port) >= 0 && Number(port) <= 65_535))
		return undefined;
	let isWrong = false;
	const listen = readListen(
		{
			listen: {
				...defaults,
				interface: typeof device === "string" ? device : defaults.interface,
				...(typeof address === "string" && { address }),
				port: Number(port),
			},
		},
		device !== undefined,
		() => {
			isWrong = true;
		},
	);
	return isWrong ? undefined : listen;
}

import path from "node:path";
import { parseTree } from "jsonc-parser";
import { loadConfig } from "../config/load.ts";
import { readConfig } from "../config/readConfig.ts";
import { configSchema, defaultsOf } from "../config/schema.ts";
import { BadFileError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { askGateOn } from "./client.ts";

/** Where the keys are, and where the running gate is asked. */
export interface Places {
	/** Absolute. */
	readonly keysFile: string;
	/** `undefined` where it is off. */
	readonly adminSocket: string | undefined;
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
		const { keysFile, admin } = await loadConfig(configFile);
		return { keysFile, adminSocket: admin.socket, broken: undefined };
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return findInBroken(text, configFile, error);
	}
}

async function findInBroken(
	text: string,
	configFile: string,
	broken: BadFileError,
): Promise<Places> {
	const tree = parseTree(text.replace(/^\uFEFF/, ""));
	/** A setting that is a text, the last of its name. */
	const settingAt = (...names: string[]) => {
		let node = tree;
		for (const name of names)
			node = node?.children?.findLast(
				({ children = [] }) => children[0]?.value === name,
			)?.children?.[1];
		return typeof node?.value === "string" ? node.value : undefined;
	};
	const defaults = defaultsOf(configSchema) as {
		keysFile: string;
		admin: { socket: string };
	};
	const socket = settingAt("admin", "socket") ?? defaults.admin.socket;
	const adminSocket = socket === "off" ? undefined : socket;
	if (adminSocket !== undefined) {
		const asked = await askGateOn(adminSocket);
		if (
			asked.kind === "status" &&
			asked.status.files?.config === path.resolve(configFile)
		)
			return { keysFile: asked.status.files.keys, adminSocket, broken };
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
		adminSocket,
		broken,
	};
}

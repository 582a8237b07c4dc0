import { lookup } from "node:dns";
import type { Settings } from "../config/load.ts";
import { type HostSettings, isOnThisMachine } from "../config/upstreams.ts";
import { BadFileError, type Mistake } from "../errors.ts";
import { loadHostKey } from "../keys/hostKey.ts";
import { parseAddress } from "../net/ranges.ts";
import {
	NotInTailnet,
	type Resolve,
	tailnetLookup,
} from "../net/tailnetLookup.ts";

/** A name server that does not answer must not keep the gate from starting. */
const lookupMs = 2_000;

/**
 * Reads the keys for other hosts, and looks where their names lead. A name that
 * is not found is not a mistake: its host is down until it is.
 *
 * @returns the keys by the hosts' names
 * @throws {BadFileError} with the line of every host that will not do
 */
export async function loadHostKeys(
	{ hosts, configFile }: Settings,
	resolve: Resolve = lookup,
): Promise<ReadonlyMap<string, string>> {
	const keys = new Map<string, string>();
	const mistakes: Mistake[] = [];
	for (const [index, host] of (hosts ?? []).entries()) {
		if (host.keyFile === undefined) continue;
		try {
			keys.set(host.name, await loadHostKey(host.keyFile));
		} catch (error) {
			if (!(error instanceof BadFileError)) throw error;
			for (const { message } of error.mistakes)
				mistakes.push(at(host, index, "keyFile", `${error.file}: ${message}`));
		}
	}
	const places = await Promise.all(
		(hosts ?? []).map((host) => whereOutside(host, resolve)),
	);
	for (const [index, address] of places.entries()) {
		const host = hosts?.[index];
		if (host !== undefined && address !== undefined)
			mistakes.push(
				at(
					host,
					index,
					"url",
					`this name leads to ${address}, outside the tailnet (100.64.0.0/10, fd7a:115c:a1e0::/48), where keys and prompts could be read on their way; use that host's name in the tailnet, or its tailnet address`,
				),
			);
	}
	if (mistakes.length > 0) throw new BadFileError(configFile, mistakes);
	return keys;
}

function at(
	{ line }: HostSettings,
	index: number,
	member: string,
	message: string,
): Mistake {
	const path = `upstreams[${index}].${member}`;
	return line === undefined ? { path, message } : { path, message, line };
}

/** The address outside the tailnet to which a host's name leads, if it does. */
async function whereOutside(
	{ target }: HostSettings,
	resolve: Resolve,
): Promise<string | undefined> {
	if (
		target.kind === "unix" ||
		// Where it led when its bridge was made is where it leads.
		target.bridge !== undefined ||
		isOnThisMachine(target) ||
		parseAddress(target.host) !== undefined
	)
		return undefined;
	const { promise, resolve: tell } = Promise.withResolvers<
		string | undefined
	>();
	const timer = setTimeout(() => tell(undefined), lookupMs);
	tailnetLookup(resolve)(target.host, { all: true }, (error) =>
		tell(error instanceof NotInTailnet ? error.address : undefined),
	);
	return promise.finally(() => clearTimeout(timer));
}

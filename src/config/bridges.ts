import path from "node:path";
import type { Settings } from "./load.ts";

/** Where the sockets of bridges are (systemd/llamagate-bridge@.socket). */
export const bridgesFolder = "/run/llamagate-bridges";
/** Tells a gate that it has no network of its own, and in which folder its bridges are. */
export const bridgesVariable = "LLAMAGATE_BRIDGES";

/** Where a bridge leads, as the configuration names it. */
export interface BridgeEnd {
	readonly host: string;
	readonly port: number;
}

/**
 * What the bridge to a place is called. It goes by the place and not by what is
 * there: another address in the configuration never meets the bridge to an old
 * one, and a key never goes to a host that it is not for.
 */
export function bridgeName({ host, port }: BridgeEnd): string {
	return `${host}-${port}`;
}

/** A socket's path has at most 107 bytes (sys/un.h), and a unit's name no other signs. */
const fitting = /^[a-z0-9:._-]{1,79}$/;

/** Whether there can be a bridge of that name. */
export function isBridgeName(name: string): boolean {
	return fitting.test(name);
}

/**
 * The socket of the bridge to a place. Where there can be none it is one that
 * nobody makes: Node fails at once for a path that is too long, and so early under
 * TLS that the error is nobody's and ends the process.
 */
export function bridgeSocket(end: BridgeEnd, folder = bridgesFolder): string {
	const name = bridgeName(end);
	return path.join(folder, `${isBridgeName(name) ? name : "none"}.sock`);
}

/**
 * Settings by which every address is reached through its bridge, whether that is
 * there or not: a gate without a network has no other way. What they say of each
 * place stays, such as the name that a certificate must have.
 *
 * @param folder where the bridges are; `undefined` for a gate with a network
 */
export function withBridges(
	settings: Settings,
	folder: string | undefined,
): Settings {
	if (folder === undefined) return settings;
	const bridged = <T extends { readonly kind: "tcp" | "unix" }>(
		target: T,
	): T =>
		isEnd(target)
			? { ...target, bridge: bridgeSocket(target, folder) }
			: target;
	const { upstream, hosts, state } = settings;
	return {
		...settings,
		upstream: { ...upstream, target: bridged(upstream.target) },
		hosts: hosts?.map((host) => ({ ...host, target: bridged(host.target) })),
		state: state && { ...state, target: bridged(state.target) },
	};
}

function isEnd<T extends { readonly kind: "tcp" | "unix" }>(
	target: T,
): target is T & BridgeEnd {
	return target.kind === "tcp";
}

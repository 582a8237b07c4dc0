import type { Settings } from "../config/load.ts";
import type { Binding } from "../keys/keyFile.ts";
import { parseModelPattern } from "../ollama/modelName.ts";
import { type Scope, scopes } from "../ollama/routes.ts";
import type { TailnetNode, TailscaleNode } from "../tailscale/localApi.ts";
import type { Whois } from "../tailscale/whois.ts";
import { localSource } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import { checkModelInPath } from "./modelPolicy.ts";
import { type Grant, narrow } from "./narrow.ts";
import type { Refusal } from "./refusal.ts";

const forbidden = (message: string): Refusal => ({
	status: 403,
	reason: "identity",
	message,
});

/**
 * The part of step 5 that asks tailscaled who the device is: whether it is one
 * at all, whether the key is bound to it, and what the tailnet's policy leaves
 * to it. A grant narrows what the key may do and never widens it.
 */
export async function checkIdentity(
	exchange: Exchange,
	mode: Settings["identity"]["mode"],
	whois: Whois | undefined,
): Promise<Refusal | undefined> {
	const { credential, route, match, connection } = exchange;
	if (credential === undefined || route === undefined || match.kind !== "route")
		throw new Error("a request without a credential reached the identity");
	const { key } = credential;
	if (mode === "off" || whois === undefined)
		// The loader refuses a bound key without a mode; if one came here all the same, it is of no use.
		return key.bind === undefined
			? undefined
			: forbidden(
					`the key "${key.name}" is bound to a device, and none is looked up`,
				);

	const { remotePort } = exchange.req.socket;
	const answer =
		connection.parsedAddress === localSource
			? ({ kind: "unknown" } as const)
			: exchange.node !== undefined
				? ({ kind: "node", node: exchange.node } as const)
				: await whois.lookup(connection.address, remotePort ?? 0);
	if (answer.kind !== "node") {
		exchange.identityFault =
			answer.kind === "unknown" ? "unknown" : answer.reason;
		if (mode !== "require" && key.bind === undefined) return undefined;
		return answer.kind === "unknown"
			? forbidden("this address belongs to no device of the tailnet")
			: {
					status: 503,
					reason: "identity",
					message: `llamagate cannot ask tailscaled who you are: ${answer.reason}`,
				};
	}

	const { node } = answer;
	exchange.node = node;
	if (key.bind !== undefined && !isBoundTo(key.bind, node))
		return forbidden(`the key "${key.name}" may not be used from this device`);
	if (node.user !== undefined)
		exchange.person ??= { id: node.user, name: node.user, by: "login" };
	const values = grantValuesOf(node);
	if (values === undefined) return undefined;
	exchange.grants = values;
	const grants = readGrants(values);
	const narrowed = narrow(key, grants, route, "from this device");
	if (narrowed === undefined)
		return forbidden(
			`the tailnet's policy does not grant "${route.scope}" to this device`,
		);
	exchange.credential = { ...credential, key: narrowed };
	return checkModelInPath(narrowed, route, match.path);
}

/** Names compare as MagicDNS does, without regard to case. */
export function isBoundTo(bind: Binding, node: TailnetNode): boolean {
	const has = (
		list: readonly string[] | undefined,
		value: string | undefined,
	) =>
		value !== undefined &&
		value !== "" &&
		list?.some((entry) => entry.toLowerCase() === value.toLowerCase()) === true;
	return (
		has(bind.nodes, node.name) ||
		has(bind.nodes, node.fqdn) ||
		has(bind.users, node.user) ||
		// Headscale's own spelling of a user whose login is not an e-mail.
		has(bind.users, node.user && `${node.user}@`) ||
		node.tags.some((tag) => has(bind.tags, tag))
	);
}

/** What the tailnet's policy says to the device under the capability `…/llamagate`; `undefined` for nothing. */
export function grantValuesOf(
	node: TailscaleNode,
): readonly unknown[] | undefined {
	const values: unknown[] = [];
	let found = false;
	for (const [name, entries] of node.capabilities) {
		if (name !== "llamagate" && !name.endsWith("/llamagate")) continue;
		found = true;
		values.push(...entries);
	}
	return found ? values : undefined;
}

/** The grants that can be read; one that cannot grants nothing. */
export function readGrants(values: readonly unknown[]): readonly Grant[] {
	return values.flatMap((value) => {
		const grant = readGrant(value);
		return grant === undefined ? [] : [grant];
	});
}

function readGrant(value: unknown): Grant | undefined {
	if (typeof value !== "object" || value === null || Array.isArray(value))
		return undefined;
	const entry = value as Record<string, unknown>;
	const known = ["scopes", "models"];
	if (Object.keys(entry).some((name) => !known.includes(name)))
		return undefined;
	const granted = entry.scopes ?? scopes;
	if (!isStrings(granted)) return undefined;
	if (entry.models === undefined)
		return { scopes: new Set(granted as Scope[]), models: undefined };
	if (!isStrings(entry.models)) return undefined;
	const models = entry.models.flatMap((text) => parseModelPattern(text) ?? []);
	return models.length === entry.models.length
		? { scopes: new Set(granted as Scope[]), models }
		: undefined;
}

function isStrings(value: unknown): value is string[] {
	return (
		Array.isArray(value) && value.every((item) => typeof item === "string")
	);
}

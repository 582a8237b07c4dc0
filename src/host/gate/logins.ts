import type { Settings } from "../../config/load.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	unknown,
} from "../../doctor/check.ts";
import { loginCredential } from "../../gate/login.ts";
import type {
	NodesAnswer,
	StatusAnswer,
	TailnetNode,
} from "../../tailscale/localApi.ts";
import { visible } from "../../visible.ts";

/** How many devices of one login are named. */
const mostNamed = 8;

/**
 * What `identity.mode` `login` opens now: who needs no key, from which devices,
 * for what. It is what the owner chose; a finding is what they may not have
 * meant: a login that may manage or act as the owner, a whole domain, or a
 * tailscaled with which it lets nobody in.
 */
export function judgeLogins(
	identity: Settings["identity"],
	status: StatusAnswer,
	nodes: NodesAnswer,
	corsOrigins: ReadonlySet<string> = new Set(),
): Outcome {
	if (identity.mode !== "login")
		return ok(`identity.mode is "${identity.mode}": everybody needs a key`);
	if (status.kind !== "status") return unknown(visible(status.reason));
	if (status.status.userspace)
		return finding(
			[
				'identity.mode is "login", and tailscaled has no tunnel device: it brings every peer from loopback, so nobody is let in by login',
			],
			{ fix: userspaceFix },
		);
	if (nodes.kind !== "nodes") return unknown(visible(nodes.reason));
	const wide = identity.rules.flatMap(({ users, scopes = [] }) => [
		...(scopes.some((scope) => scope === "manage" || scope === "account")
			? [`${users.join(", ")}: ${scopes.join(", ")} without a key`]
			: []),
		...users
			.filter((user) => user.startsWith("*"))
			.map(
				(user) =>
					`${user}: everybody of that domain, also those who join it later`,
			),
	]);
	const open = loginsOf(nodes.nodes).flatMap(([user, devices]) => {
		const scopes = loginCredential(identity, user)?.key.scopes;
		return scopes === undefined
			? []
			: [
					`${user} needs no key on ${listOf(devices)}, nor does any program there: ${[...scopes].join(", ")}`,
				];
	});
	const lines = [
		...wide,
		...(open.length > 0 ? open : ["no device of the tailnet fits a rule"]),
		...(open.length > 0 && corsOrigins.size > 0
			? [
					`nor do pages of ${[...corsOrigins].join(", ")} in a browser there (cors.origins)`,
				]
			: []),
	].map(visible);
	return wide.length > 0 ? finding(lines) : ok(...lines);
}

const userspaceFix =
	'set identity.mode to "off", "log" or "require" in /etc/llamagate/config.json, or run tailscaled with a tunnel device; then: sudo llamagate reload';

/** The owners of the tailnet's own devices that have one, with their names. */
function loginsOf(
	nodes: readonly TailnetNode[],
): (readonly [string, readonly string[]])[] {
	const devices = new Map<string, string[]>();
	// The first is this host, which needs a key, as do devices of another tailnet.
	for (const { user, name, isShared } of nodes.slice(1))
		if (user !== undefined && !isShared && name !== "" && !name.includes("."))
			devices.set(user, [...(devices.get(user) ?? []), name]);
	return [...devices];
}

function listOf(names: readonly string[]): string {
	const rest = names.length - mostNamed;
	return `${names.slice(0, mostNamed).join(", ")}${rest > 0 ? ` and ${rest} more` : ""}`;
}

/** @param settings `undefined` where no configuration could be read */
export async function lookAtLogins(
	settings: Pick<Settings, "identity" | "corsOrigins"> | undefined,
	ask: (socket: string) => {
		status(): Promise<StatusAnswer>;
		nodes(): Promise<NodesAnswer>;
	},
): Promise<Outcome> {
	if (settings === undefined) return absent("found no configuration to read");
	const { identity, corsOrigins } = settings;
	const off = { kind: "unreachable", reason: "not asked" } as const;
	if (identity.mode !== "login") return judgeLogins(identity, off, off);
	const whois = ask(identity.socket);
	return judgeLogins(
		identity,
		...(await Promise.all([whois.status(), whois.nodes()])),
		corsOrigins,
	);
}

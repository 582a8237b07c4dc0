import type { Settings } from "../../config/load.ts";
import { Finding } from "../../errors.ts";
import { isBoundTo } from "../../gate/identity.ts";
import type { Binding } from "../../keys/keyFile.ts";
import type { TailnetNode } from "../../tailscale/localApi.ts";
import { createWhois } from "../../tailscale/whois.ts";
import { visible } from "../../visible.ts";
import { say } from "./action.ts";

/** How many devices or people are named in one line. */
const mostNamed = 8;

/** @throws {Finding} where devices are not told apart, so that no key can be bound to one */
export function refuseUnknownDevices(
	{ identity }: Settings,
	configFile: string,
): void {
	if (identity.mode === "off")
		throw new Finding(
			`a bound key needs to know who is who: set identity.mode to "log" or "require" in ${configFile} first`,
		);
}

/**
 * Says which devices of the tailnet a binding fits now, and warns where a name
 * in it fits none: such a key is refused everywhere, and nothing else tells why.
 *
 * @param socket the path of tailscaled's socket
 */
export async function sayWhoIsMeant(
	bind: Binding,
	socket: string,
): Promise<void> {
	const answer = await createWhois({ socket }).nodes();
	if (answer.kind !== "nodes") {
		say(
			visible(
				`Whether the binding fits a device could not be looked up: ${answer.reason}`,
			),
		);
		return;
	}
	const { nodes } = answer;
	const fitting = nodes.filter((node) => isBoundTo(bind, node));
	if (fitting.length > 0)
		say(`It may be used from ${listOf(fitting.map(({ name }) => name))}.`);
	for (const [kind, names] of Object.entries(bind) as [
		keyof Binding,
		readonly string[],
	][])
		for (const name of names)
			if (!nodes.some((node) => isBoundTo({ [kind]: [name] }, node)))
				say(`Warning: ${visible(nobodyFits(kind, name, nodes))}`);
}

function nobodyFits(
	kind: keyof Binding,
	name: string,
	nodes: readonly TailnetNode[],
): string {
	const users = [...new Set(nodes.flatMap(({ user }) => user ?? []))];
	switch (kind) {
		case "nodes":
			return users.includes(name)
				? `no device is called ${name}, but a person is: write ${name}@`
				: `no device of the tailnet is called ${name}; there are ${listOf(nodes.map((node) => node.name))}`;
		case "users":
			return `no device of the tailnet belongs to ${name}; people with devices are ${listOf(users)}`;
		case "tags":
			return `no device of the tailnet has ${name}; tags in use are ${listOf([...new Set(nodes.flatMap(({ tags }) => tags))])}`;
	}
}

function listOf(names: readonly string[]): string {
	if (names.length === 0) return "none";
	const shown = names.slice(0, mostNamed).map(visible).join(", ");
	return names.length > mostNamed
		? `${shown} and ${names.length - mostNamed} more`
		: shown;
}

import { type AddressSet, holds, sizeOf } from "./addressSet.ts";
import {
	type Answer,
	addressSetOf,
	holdsServer,
	isTailnet,
	tailnetPart,
} from "./nodeAddresses.ts";
import type { NameList, TailnetPolicy } from "./policyFile.ts";
import {
	isEveryone,
	isRole,
	type Selectors,
	type Server,
} from "./selectors.ts";

/** One that a test speaks of: a person who signs in as a user, a device with a tag, or the device at an address. */
export type Party =
	| { readonly sort: "user"; readonly name: string }
	| {
			readonly sort: "group";
			readonly name: string;
			readonly members: readonly string[];
	  }
	| { readonly sort: "tag"; readonly name: string }
	| {
			readonly sort: "address";
			readonly set: AddressSet;
			readonly isTailnet: boolean;
			readonly isServer: boolean;
	  }
	| { readonly sort: "autogroup"; readonly name: string };

/** What a test names, or why it names nobody: `wrong` if Tailscale refuses it, `unclear` if the file does not say. */
export type Named =
	| { readonly party: Party }
	| { readonly wrong: string }
	| { readonly unclear: string };

/** Reads a name in a test. */
export function readParty(
	name: string,
	policy: TailnetPolicy,
	selectors: Selectors,
	server: Server,
): Named {
	if (name === "") return { wrong: "it has no src" };
	if (name === "*") return { wrong: "* is not one user, group, tag or host" };
	if (name.startsWith("tag:"))
		return policy.tagOwners.has(name)
			? { party: { sort: "tag", name } }
			: { wrong: `tagOwners does not have ${name}` };
	if (name.startsWith("group:")) {
		const members = policy.groups.get(name)?.names;
		if (members === undefined)
			return name.includes("@")
				? { unclear: `who is in ${name} is not in the file` }
				: { wrong: `groups does not have ${name}` };
		return members.length === 0
			? { unclear: `${name} has no members` }
			: { party: { sort: "group", name, members } };
	}
	if (name.startsWith("autogroup:"))
		return isEveryone(name) || isRole(name)
			? { party: { sort: "autogroup", name } }
			: { wrong: `found no ${name} that could be meant` };
	if (isEveryone(name)) return { unclear: `${name} is not one user` };
	const set = selectors.addresses(name)?.set;
	if (set !== undefined)
		return sizeOf(set) === 1n && !name.includes("/")
			? {
					party: {
						sort: "address",
						set,
						isTailnet: isTailnet(set),
						isServer: holds(addressSetOf(server.addresses), set),
					},
				}
			: { wrong: `${name} is more than one address` };
	if (name.includes("@")) return { party: { sort: "user", name } };
	return { wrong: `hosts does not have ${name}` };
}

/** How much work it is to look at a party once. */
export function costOf(party: Party): number {
	return party.sort === "group" ? party.members.length : 1;
}

/** Whether a selector of a rule takes in a party. */
export function takesIn(
	selector: string,
	party: Party,
	side: "src" | "dst",
	policy: TailnetPolicy,
	selectors: Selectors,
): Answer {
	if (party.sort === "group") {
		if (selector === party.name) return "yes";
		const answers = new Set(
			party.members.map((name) =>
				takesIn(selector, { sort: "user", name }, side, policy, selectors),
			),
		);
		const [only] = answers;
		return answers.size === 1 && only !== undefined ? only : "unknown";
	}
	if (party.sort === "autogroup")
		return selector === party.name ||
			selector === "autogroup:danger-all" ||
			(selector === "*" && party.name !== "autogroup:danger-all")
			? "yes"
			: "unknown";
	if (selector === "autogroup:danger-all") return "yes";
	if (selector === "*")
		// Of addresses beyond the tailnet, * is a source only for approved routes.
		return party.sort === "address" && side === "src" && !party.isTailnet
			? "unknown"
			: "yes";
	const found = selectors.addresses(selector);
	if (party.sort === "address")
		return found === undefined
			? holderIs(selector, party, selectors)
			: !found.complete
				? "unknown"
				: holds(found.set, party.set)
					? "yes"
					: "no";
	if (found !== undefined)
		// What a test names is there by the addresses that Tailscale gave.
		return found.complete ? holdsServer(tailnetPart(found.set), []) : "unknown";
	if (selector === party.name) return "yes";
	if (party.sort === "tag")
		return selector === "autogroup:tagged"
			? "yes"
			: selector.startsWith("svc:") || selector.startsWith("ipset:")
				? "unknown"
				: "no";
	return takesInUser(selector, party.name, policy);
}

function takesInUser(
	selector: string,
	user: string,
	policy: TailnetPolicy,
): Answer {
	if (/^autogroup:members?$/.test(selector)) return "yes";
	if (selector.startsWith("user:*@"))
		return user.endsWith(selector.slice("user:*".length)) ? "yes" : "no";
	if (selector.startsWith("group:")) {
		const group = policy.groups.get(selector);
		if (group === undefined) return "unknown";
		const { names, areBare } = membersOf(group);
		if (names.has(user)) return "yes";
		return areBare.has(!isBareName(user)) ? "unknown" : "no";
	}
	if (isRole(selector) || selector.startsWith("ipset:")) return "unknown";
	if (selector.startsWith("svc:")) return "unknown";
	return selector.includes("@") ? isSameUser(selector, user) : "no";
}

/** Whether a user is written in headscale's way, by a name with nothing behind the @. */
export function isBareName(user: string): boolean {
	return user.endsWith("@");
}

/** Whether two texts name one user. headscale takes a name or an e-mail, and whose is whose the file does not say. */
export function isSameUser(one: string, other: string): Answer {
	if (one === other) return "yes";
	return isBareName(one) === isBareName(other) ? "no" : "unknown";
}

interface Members {
	readonly names: ReadonlySet<string>;
	/** Whether there are bare names among them (`true`), and e-mails (`false`). */
	readonly areBare: ReadonlySet<boolean>;
}

const knownMembers = new WeakMap<NameList, Members>();

function membersOf(group: NameList): Members {
	let members = knownMembers.get(group);
	if (members === undefined) {
		const names = new Set(group.names);
		members = { names, areBare: new Set([...names].map(isBareName)) };
		knownMembers.set(group, members);
	}
	return members;
}

/** Whether the device at an address is one that a tag, a user or a group means. */
function holderIs(
	selector: string,
	{ isServer, isTailnet }: { isServer: boolean; isTailnet: boolean },
	selectors: Selectors,
): Answer {
	if (isServer) return selectors.look(selector).isServer;
	return isTailnet ? "unknown" : "no";
}

import {
	type AddressSet,
	holds,
	parseSpan,
	type Span,
	subtract,
	union,
} from "./addressSet.ts";
import {
	type Answer,
	addressSetOf,
	addShares,
	coverTailnet,
	holdsServer,
	internet,
	mayHoldPool,
	sharesOf,
} from "./nodeAddresses.ts";
import type { TailnetPolicy } from "./policyFile.ts";

/** The machine that a policy is judged for. */
export interface Server {
	/** Every tag that it carries, at least one; so it belongs to no user. */
	readonly tags: readonly string[];
	/** Its addresses, as far as they are known; without them an address in a rule may or may not be its own. */
	readonly addresses: readonly string[];
}

/** Who a source is, as far as the policy file says. */
export interface Source {
	/**
	 * `everyone`: all devices, all members, all of a domain, all that were shared with, or every tagged device.
	 * `nobody`: an empty group or set.
	 * `person`: devices that a user signed in on, which therefore carry no tag.
	 * `unknown`: a name that the file does not explain.
	 */
	readonly sort:
		| "everyone"
		| "nobody"
		| "person"
		| "tag"
		| "address"
		| "unknown";
	/** What the file says of a name: `2 users`, `100.101.102.104`. */
	readonly detail?: string;
	/** Whether the file says all that there is to know of it. */
	readonly resolved: boolean;
}

/** tailscale.com/docs/reference/targets-and-selectors: roles that a user has. */
const roles = new Set(
	"owner admin network-admin it-admin billing-admin auditor"
		.split(" ")
		.map((role) => `autogroup:${role}`),
);

/** Whether a selector is a role, such as `autogroup:admin`: the file does not say who has it. */
export function isRole(selector: string): boolean {
	return roles.has(selector);
}

const wide = new Set([
	"*",
	"autogroup:danger-all",
	"autogroup:shared",
	"autogroup:member",
	"autogroup:members",
	"autogroup:tagged",
]);

/** Whether a selector means more devices than anyone has listed. */
export function isEveryone(selector: string): boolean {
	return wide.has(selector) || selector.startsWith("user:*@");
}

/** What a selector means. */
export interface Meaning extends Source {
	readonly selector: string;
	/**
	 * Whether it means the server. A tagged device belongs to no user, so users,
	 * groups, roles and `autogroup:self` never mean it. The server is taken to
	 * carry its tags and no other.
	 */
	readonly isServer: Answer;
	/** Whether it is an address of the server, and of nothing else. */
	readonly isServerAlone: boolean;
	/** What it has of the addresses that nodes have. */
	readonly shares: readonly bigint[];
}

/** What the names in one policy mean, for one server. Each is worked out once. */
export interface Selectors {
	/** Says who a source is, and whether it is the server. */
	look(selector: string): Meaning;
	/**
	 * The same for a list. Addresses that stand for the server only together, as
	 * both halves of the tailnet do, all mean it.
	 */
	mean(selectors: readonly string[]): Map<string, Answer>;
	/** Whether the addresses among selectors are together most of the tailnet. */
	coverTailnet(selectors: readonly string[]): boolean;
	/** Whether a selector is the internet by way of exit nodes, or an IP set made from it. */
	isInternet(selector: string): boolean;
	/**
	 * The addresses that a selector means: an address, a range, a name from
	 * `hosts` or an `ipset:`. `undefined` if it is none of these, or not defined.
	 */
	addresses(selector: string): Addresses | undefined;
}

/** Addresses, and how they were come by. */
export interface Addresses {
	readonly set: AddressSet;
	/** What it is made of, as the file writes it; the first few. */
	readonly texts: readonly string[];
	/** False where something could not be worked out. */
	readonly complete: boolean;
}

const maxTexts = 8;
/** IP sets made of IP sets made of IP sets. */
const maxNesting = 50;
/** So many ranges are put together for one policy; past that, each list of them counts as the whole tailnet. */
const maxSpans = 1_000_000;

/** Reads the names in one policy, for one server. */
export function readSelectors(
	policy: TailnetPolicy,
	server: Server,
): Selectors {
	const own = addressSetOf(server.addresses);
	const known = new Map<string, Meaning>();
	const ipSets = new Map<string, Addresses | undefined>();
	let spans = 0;
	/** Counts work, and says whether there is room for it. */
	const afford = (count: number): boolean => {
		spans += count;
		return spans <= maxSpans;
	};

	const addresses = (
		selector: string,
		within: readonly string[] = [],
	): Addresses | undefined => {
		if (!selector.startsWith("ipset:")) return readAddresses(selector);
		if (ipSets.has(selector)) return ipSets.get(selector);
		const found = readIpSet(selector, within);
		ipSets.set(selector, found);
		return found;
	};
	const readAddresses = (selector: string): Addresses | undefined => {
		if (selector === "autogroup:internet")
			return { set: internet, texts: [selector], complete: true };
		const text = policy.hosts.get(selector) ?? selector;
		const span = parseSpan(text);
		return span && { set: [span], texts: [text], complete: true };
	};
	/**
	 * Source: tailscale.com/docs/features/tailnet-policy-file/ip-sets: what a set
	 * adds and removes counts in its order.
	 */
	const readIpSet = (
		selector: string,
		within: readonly string[],
	): Addresses | undefined => {
		const operations = policy.ipsets.get(selector)?.names;
		if (
			operations === undefined ||
			within.includes(selector) ||
			within.length >= maxNesting
		)
			return undefined;
		let complete = true;
		let set: AddressSet = [];
		/** Added and not yet merged: merging at each would be quadratic. */
		let added: Span[] = [];
		const texts = new Set<string>();
		for (const operation of operations) {
			const [, verb, name = ""] =
				/^(?:(add|remove)\s+)?(.*)$/s.exec(operation) ?? [];
			const part = addresses(name.replace(/^host:/, ""), [...within, selector]);
			if (part?.complete !== true) complete = false;
			if (part === undefined) continue;
			const isRemoval = verb === "remove";
			if (!afford(part.set.length + (isRemoval ? set.length : 0)))
				return undefined;
			if (isRemoval) {
				set = subtract(union([...set, ...added]), part.set);
				added = [];
			} else {
				for (const span of part.set) added.push(span);
				for (const text of part.texts)
					if (texts.size < maxTexts) texts.add(text);
			}
		}
		return { set: union([...set, ...added]), texts: [...texts], complete };
	};

	const look = (selector: string): Meaning => {
		let meaning = known.get(selector);
		if (meaning === undefined) {
			const found = isEveryone(selector) ? undefined : addresses(selector);
			const shares = found === undefined ? [] : sharesOf(found.set);
			meaning = {
				selector,
				...describeSource(selector, policy, found, shares),
				isServer: meansServer(selector, server, own, found),
				isServerAlone:
					found?.complete === true &&
					found.set.length > 0 &&
					holds(own, found.set),
				shares,
			};
			known.set(selector, meaning);
		}
		return meaning;
	};

	/** The ranges of several selectors, put together; `undefined` if they are too many. */
	const together = (parts: readonly Meaning[]): AddressSet | undefined => {
		const sets = parts.map(({ selector }) => addresses(selector)?.set ?? []);
		const count = sets.reduce((sum, { length }) => sum + length, 0);
		return afford(count) ? union(sets.flat()) : undefined;
	};

	return {
		look,
		mean(selectors) {
			const meanings = selectors.map(look);
			const result = new Map(
				meanings.map(({ selector, isServer }) => [selector, isServer]),
			);
			const parts = meanings.filter(
				({ isServer, resolved, shares }) =>
					isServer === "unknown" && resolved && shares.length > 0,
			);
			if (
				parts.length > 1 &&
				mayHoldPool(addShares(parts.map(({ shares }) => shares)))
			) {
				const set = together(parts);
				if (set === undefined || holdsServer(set, own) === "yes")
					for (const { selector } of parts) result.set(selector, "yes");
			}
			return result;
		},
		coverTailnet(selectors) {
			const parts = selectors.map(look);
			const shares = parts.map((part) => part.shares);
			if (!coverTailnet(addShares(shares))) return false;
			if (shares.some(coverTailnet)) return true;
			const set = together(parts);
			return set === undefined || coverTailnet(sharesOf(set));
		},
		isInternet: (selector) =>
			addresses(selector)?.texts.includes("autogroup:internet") ?? false,
		addresses,
	};
}

function describeSource(
	selector: string,
	policy: TailnetPolicy,
	found: Addresses | undefined,
	shares: readonly bigint[],
): Source {
	if (isEveryone(selector)) return { sort: "everyone", resolved: true };
	if (selector.startsWith("tag:")) return { sort: "tag", resolved: true };
	if (selector.startsWith("group:")) {
		const group = policy.groups.get(selector);
		if (group === undefined)
			return { sort: "person", detail: "not in this file", resolved: false };
		if (group.names.some(isEveryone))
			return { sort: "everyone", resolved: true };
		const count = group.names.length;
		return {
			sort: count === 0 ? "nobody" : "person",
			detail: `${count} ${count === 1 ? "user" : "users"}`,
			resolved: true,
		};
	}
	if (selector.startsWith("autogroup:"))
		return isRole(selector)
			? { sort: "person", resolved: true }
			: { sort: "unknown", resolved: false };
	if (found !== undefined) {
		const { set, texts, complete } = found;
		const sort = coverTailnet(shares) ? "everyone" : "address";
		return {
			sort: complete && set.length === 0 ? "nobody" : sort,
			...(texts[0] !== selector
				? { detail: texts.join(", ") || "nothing" }
				: {}),
			resolved: complete,
		};
	}
	if (selector.includes("@")) return { sort: "person", resolved: true };
	return { sort: "unknown", resolved: false };
}

function meansServer(
	selector: string,
	server: Server,
	own: AddressSet,
	found: Addresses | undefined,
): Answer {
	if (
		selector === "*" ||
		selector === "autogroup:danger-all" ||
		selector === "autogroup:tagged" ||
		server.tags.includes(selector)
	)
		return "yes";
	if (selector.startsWith("tag:") || selector.startsWith("group:")) return "no";
	if (isEveryone(selector) || isRole(selector)) return "no";
	if (selector.startsWith("autogroup:"))
		return selector === "autogroup:self" || selector === "autogroup:internet"
			? "no"
			: "unknown";
	if (found === undefined) return selector.includes("@") ? "no" : "unknown";
	// A part that could not be worked out may add the server or take it away.
	if (!found.complete) return "unknown";
	// The internet by way of an exit node is not the server, whatever its public address.
	return holdsServer(
		found.texts.includes("autogroup:internet")
			? subtract(found.set, internet)
			: found.set,
		own,
	);
}

import type ipaddr from "ipaddr.js";
import {
	liesIn,
	parseAddress,
	parseRange,
	type Range,
	tailscaleRanges,
} from "../net/ranges.ts";
import type { TailnetPolicy } from "./policyFile.ts";

/** The machine that a policy is judged for. */
export interface Server {
	readonly tag: string;
	/** Its addresses, as far as they are known; without them an address in a rule may or may not be its own. */
	readonly addresses: readonly string[];
}

export type Answer = "yes" | "no" | "unknown";

/** Who a source is, as far as the policy file says. */
export interface Source {
	/**
	 * `everyone`: all devices, all members, all of a domain, all that were shared with, or every tagged device.
	 * `person`: devices that a user signed in on, which therefore carry no tag.
	 * `unknown`: a name that the file does not explain.
	 */
	readonly sort: "everyone" | "person" | "tag" | "address" | "unknown";
	/** What the file says of a name: `2 users`, `100.101.102.104`. */
	readonly detail?: string;
	/** Whether the file says all that there is to know of it. */
	readonly resolved: boolean;
}

/** tailscale.com/docs/reference/targets-and-selectors: roles that a user has. */
const roles = new Set(
	"owner admin network-admin it-admin billing-admin auditor".split(" "),
);

const wide = new Set([
	"*",
	"autogroup:danger-all",
	"autogroup:shared",
	"autogroup:member",
	"autogroup:members",
	"autogroup:tagged",
]);

/** Whether a selector stands for more devices than anyone has listed. */
export function isEveryone(selector: string): boolean {
	return wide.has(selector) || selector.startsWith("user:*@");
}

/** Says who a source is. */
export function describeSource(
	selector: string,
	policy: TailnetPolicy,
): Source {
	if (isEveryone(selector)) return { sort: "everyone", resolved: true };
	if (selector.startsWith("tag:")) return { sort: "tag", resolved: true };
	if (selector.startsWith("group:")) {
		const group = policy.groups.get(selector);
		if (group === undefined)
			return { sort: "person", detail: "not in this file", resolved: false };
		const count = group.names.length;
		return {
			sort: "person",
			detail: `${count} ${count === 1 ? "user" : "users"}`,
			resolved: true,
		};
	}
	if (selector.startsWith("autogroup:"))
		return roles.has(selector.slice("autogroup:".length))
			? { sort: "person", resolved: true }
			: { sort: "unknown", resolved: false };
	const set = addressesOf(selector, policy);
	if (set !== undefined) {
		const detail =
			parseRange(selector) === undefined
				? { detail: set.texts.join(", ") || "nothing" }
				: {};
		return {
			sort: set.ranges.some(coversTailnet) ? "everyone" : "address",
			...detail,
			resolved: set.complete,
		};
	}
	if (selector.includes("@")) return { sort: "person", resolved: true };
	return { sort: "unknown", resolved: false };
}

/**
 * Whether a selector means the server. A tagged device is nobody's own, so
 * users, groups, roles and `autogroup:self` never mean it. The server is taken
 * to carry its tag and no other.
 */
export function meansServer(
	selector: string,
	server: Server,
	policy: TailnetPolicy,
): Answer {
	if (
		selector === "*" ||
		selector === "autogroup:danger-all" ||
		selector === "autogroup:tagged" ||
		selector === server.tag
	)
		return "yes";
	if (selector.startsWith("tag:") || selector.startsWith("group:")) return "no";
	if (isEveryone(selector)) return "no";
	if (selector.startsWith("autogroup:")) {
		const name = selector.slice("autogroup:".length);
		return roles.has(name) || name === "self" || name === "internet"
			? "no"
			: "unknown";
	}
	const set = addressesOf(selector, policy);
	if (set === undefined) return selector.includes("@") ? "no" : "unknown";
	const answers = set.ranges.map((range) => holdsServer(range, server));
	// What an IP set removes is not worked out: it may be the server.
	if (answers.includes("yes")) return set.complete ? "yes" : "unknown";
	if (!set.complete || answers.includes("unknown")) return "unknown";
	return "no";
}

/** Whether a selector is the internet by way of exit nodes, or an IP set made from it. */
export function isInternet(selector: string, policy: TailnetPolicy): boolean {
	return (
		selector === "autogroup:internet" ||
		(addressesOf(selector, policy)?.texts.includes("autogroup:internet") ??
			false)
	);
}

/** A whole family of Tailscale's addresses is the tailnet, by another name. */
function coversTailnet(range: Range): boolean {
	return tailscaleRanges.some(
		([base, bits]) => bits >= range[1] && liesIn(base, [range]),
	);
}

function holdsServer(range: Range, server: Server): Answer {
	if (coversTailnet(range)) return "yes";
	const own = server.addresses
		.map(parseAddress)
		.filter((address) => address !== undefined);
	if (own.some((address) => liesIn(address, [range]))) return "yes";
	// Only an address of the same kind, tailnet or other, tells that the range is not the server's.
	const isTailnet = overlapsTailnet(range);
	return own.some(
		(address) =>
			address.kind() === range[0].kind() &&
			liesIn(address, tailscaleRanges) === isTailnet,
	)
		? "no"
		: "unknown";
}

function overlapsTailnet(range: Range): boolean {
	const base: ipaddr.IPv4 | ipaddr.IPv6 = range[0];
	return liesIn(base, tailscaleRanges) || coversTailnet(range);
}

interface AddressSet {
	readonly ranges: readonly Range[];
	readonly texts: readonly string[];
	/** False where something could not be worked out. */
	readonly complete: boolean;
}

/**
 * The addresses that a selector stands for: an address, a range, a name from
 * `hosts` or an `ipset:`. `undefined` if it is none of these, or not defined.
 *
 * Source: tailscale.com/docs/features/tailnet-policy-file/ip-sets.
 */
function addressesOf(
	selector: string,
	policy: TailnetPolicy,
	within: readonly string[] = [],
): AddressSet | undefined {
	const range = parseRange(selector);
	if (range !== undefined)
		return { ranges: [range], texts: [selector], complete: true };
	if (selector.startsWith("ipset:")) {
		const set = policy.ipsets.get(selector);
		if (set === undefined || within.includes(selector)) return undefined;
		let complete = true;
		const parts = set.names.flatMap((operation) => {
			const [, verb, name = ""] =
				/^(?:(add|remove) +)?(.+)$/.exec(operation) ?? [];
			const part = name.startsWith("autogroup:internet")
				? { ranges: [], texts: [name], complete: true }
				: addressesOf(name.replace(/^host:/, ""), policy, [
						...within,
						selector,
					]);
			if (verb === "remove") complete = false;
			else if (part?.complete !== true) complete = false;
			return verb === "remove" || part === undefined ? [] : [part];
		});
		return {
			ranges: parts.flatMap(({ ranges }) => ranges),
			texts: parts.flatMap(({ texts }) => texts),
			complete,
		};
	}
	const host = policy.hosts.get(selector);
	const hostRange = host === undefined ? undefined : parseRange(host);
	return host === undefined || hostRange === undefined
		? undefined
		: { ranges: [hostRange], texts: [host], complete: true };
}

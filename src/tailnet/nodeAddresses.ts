import { tailscaleRanges } from "../net/ranges.ts";
import {
	type AddressSet,
	holds,
	intersect,
	parseSpan,
	type Span,
	sizeOf,
	subtract,
	union,
} from "./addressSet.ts";

/** Whether something is so, as far as the policy file says. */
export type Answer = "yes" | "no" | "unknown";

/** The addresses that texts name: `192.0.2.1`, `192.0.2.0/24`. What is none is passed over. */
export function addressSetOf(texts: readonly string[]): AddressSet {
	return union(texts.flatMap((text) => parseSpan(text) ?? []));
}

const everything = addressSetOf(["0.0.0.0/0", "::/0"]);
const tailnet = addressSetOf(
	tailscaleRanges.map(([base, bits]) => `${base}/${bits}`),
);

/**
 * What nodes get their addresses from. Of IPv6 that is a small part of the
 * tailnet's /48: the IPv4 address's own bits behind one of two prefixes
 * (tailscale net/tsaddr), and small numbers with headscale.
 */
const pools = [
	addressSetOf(["100.64.0.0/10"]),
	addressSetOf(["fd7a:115c:a1e0::/96"]),
	addressSetOf(["fd7a:115c:a1e0:ab12:4843:cd96:6240::/106"]),
];

/** Inside 100.64.0.0/10, and no node's (ChromeOS's own; tailscale net/tsaddr). */
const neverNodes = addressSetOf(["100.115.92.0/23"]);

/** The public addresses, which `autogroup:internet` stands for. */
export const internet = subtract(
	everything,
	addressSetOf([
		"0.0.0.0/8",
		"10.0.0.0/8",
		"100.64.0.0/10",
		"127.0.0.0/8",
		"169.254.0.0/16",
		"172.16.0.0/12",
		"192.168.0.0/16",
		"224.0.0.0/3",
		"::/3",
		"4000::-ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
	]),
);

/** Half of a pool and more is the tailnet, by another name. */
export function coversTailnet(set: AddressSet): boolean {
	return pools.some(
		(pool) => sizeOf(intersect(set, pool)) * 2n >= sizeOf(pool),
	);
}

/** Whether all addresses of a set are of Tailscale's ranges. */
export function isTailnet(set: AddressSet): boolean {
	return holds(tailnet, set);
}

/** Whether a set holds a machine of the tailnet of which some addresses, or none, are known. */
export function holdsServer(set: AddressSet, own: AddressSet): Answer {
	if (intersect(set, own).length > 0) return "yes";
	const isFamily =
		(family: Span["family"]) =>
		({ family: other }: Span) =>
			family === other;
	let answer: Answer = "no";
	// Only an address of the same kind, tailnet or other, tells that an address is not the server's.
	for (const kind of [tailnet, subtract(everything, tailnet)])
		for (const family of [4, 6] as const) {
			const those = kind.filter(isFamily(family));
			const part = intersect(set, those);
			if (part.length === 0 || intersect(own, those).length > 0) continue;
			if (
				pools.some(
					(pool) =>
						pool.some(isFamily(family)) &&
						holds(part, subtract(pool, neverNodes)),
				)
			)
				return "yes";
			answer = "unknown";
		}
	return answer;
}

import { tailscaleRanges } from "../../net/ranges.ts";
import {
	type AddressSet,
	holds,
	intersect,
	overlap,
	parseSpan,
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

const allPools = union(pools.flat());
const none = pools.map(() => 0n);

/** Inside 100.64.0.0/10, and no node's (ChromeOS's own; tailscale net/tsaddr). */
const neverNodes = addressSetOf(["100.115.92.0/23"]);

/** The public addresses, which `autogroup:internet` means. */
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

/** How many addresses of each pool a set has. */
export function sharesOf(set: AddressSet): readonly bigint[] {
	return overlap(set, allPools)
		? pools.map((pool) => sizeOf(intersect(set, pool)))
		: none;
}

/** What sets can have of each pool together, at most. */
export function addShares(
	shares: readonly (readonly bigint[])[],
): readonly bigint[] {
	return shares.reduce(
		(sum, share) => sum.map((size, pool) => size + (share[pool] ?? 0n)),
		none,
	);
}

/** Half of a pool and more is the tailnet, by another name. */
export function coverTailnet(shares: readonly bigint[]): boolean {
	return pools.some((pool, at) => (shares[at] ?? 0n) * 2n >= sizeOf(pool));
}

/** Whether shares can be of sets that have all of a pool. */
export function mayHoldPool(shares: readonly bigint[]): boolean {
	return pools.some(
		(pool, at) => (shares[at] ?? 0n) >= sizeOf(pool) - sizeOf(neverNodes),
	);
}

/** Whether all addresses of a set are of Tailscale's ranges. */
export function isTailnet(set: AddressSet): boolean {
	return holds(tailnet, set);
}

/** The addresses of a set that are of Tailscale's ranges. */
export function tailnetPart(set: AddressSet): AddressSet {
	return overlap(set, tailnet) ? intersect(set, tailnet) : [];
}

/** What an address can be of: the tailnet or not, IPv4 or IPv6. */
const kinds = [tailnet, subtract(everything, tailnet)].flatMap((all) =>
	([4, 6] as const).map((family) => ({
		all: all.filter((span) => span.family === family),
		pools: pools
			.filter((pool) => all === tailnet && pool[0]?.family === family)
			.map((pool) => subtract(pool, neverNodes)),
	})),
);

/** Whether a set holds a machine of the tailnet of which some addresses, or none, are known. */
export function holdsServer(set: AddressSet, own: AddressSet): Answer {
	if (overlap(set, own)) return "yes";
	let answer: Answer = "no";
	// Only an address of the same kind tells that an address is not the server's.
	for (const kind of kinds) {
		if (!overlap(set, kind.all) || overlap(own, kind.all)) continue;
		if (kind.pools.some((pool) => holds(set, pool))) return "yes";
		answer = "unknown";
	}
	return answer;
}

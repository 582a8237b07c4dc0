import { type Finding, join } from "./finding.ts";
import type { TailnetPolicy } from "./policyFile.ts";
import { isEveryone, type Server } from "./selectors.ts";

/**
 * Judges who may put a tag on a device.
 *
 * @param openers who may open a port of the server; who may give themselves a client's tag is a client
 */
export function judgeTags(
	policy: TailnetPolicy,
	server: Server,
	openers: ReadonlySet<string>,
): Finding[] {
	const findings: Finding[] = [];
	for (const [tag, place] of policy.usedTags)
		if (!policy.tagOwners.has(tag))
			findings.push({
				...place,
				kind: "missing-tag-owner",
				severity: "medium",
				says: `${tag} is used, but tagOwners does not have it: no device can carry it, and Tailscale refuses a rule that names it`,
				change: `add "${tag}": ["autogroup:admin"] to tagOwners`,
			});
	for (const tag of server.tags)
		if (!policy.tagOwners.has(tag) && !policy.usedTags.has(tag))
			findings.push({
				kind: "missing-tag-owner",
				severity: openers.size > 0 ? "medium" : "high",
				says:
					openers.size > 0
						? `${tag} is nowhere in this policy, so no device can carry it; rules for other names reach the server all the same`
						: `${tag} is nowhere in this policy, so nothing here is about the server`,
				change: `add it to tagOwners, or name the server's tag with --server-tag`,
			});
	const ways = findWideOwners(policy);
	for (const tag of new Set([...server.tags, ...openers])) {
		const way = ways.get(tag);
		const owners = policy.tagOwners.get(tag);
		if (way === undefined || owners === undefined) continue;
		const [first = tag, ...rest] = way.tags;
		const through = rest.map((one) => `; who has it may give out ${one}`);
		findings.push({
			at: owners.at,
			line: owners.line,
			kind: "wide-tag-owner",
			severity: "high",
			says: `${join(way.owners)} may put ${first} on any device of theirs${through.join("")}, and so get what ${tag} gets`,
			change:
				rest.length === 0
					? "let autogroup:admin alone own it"
					: `let autogroup:admin alone own each of ${join(way.tags)}`,
		});
	}
	return findings;
}

/** How a tag comes to anyone: wide owners, the tag that they own, and the tags that lead from there. */
interface Way {
	readonly owners: readonly string[];
	readonly tags: readonly string[];
}

/** Longer chains are told by their ends. */
const maxWay = 6;

/**
 * The tags that anyone may have, by owning them or by owning a tag that owns
 * them, however many lie between.
 */
function findWideOwners(policy: TailnetPolicy): ReadonlyMap<string, Way> {
	const ways = new Map<string, Way>();
	/** The tags that each tag owns. */
	const owned = new Map<string, string[]>();
	for (const [tag, { names }] of policy.tagOwners) {
		const owners = names.filter(isEveryone);
		if (owners.length > 0) ways.set(tag, { owners, tags: [tag] });
		for (const name of names) {
			const list = owned.get(name) ?? [];
			owned.set(name, list);
			list.push(tag);
		}
	}
	// A map's new entries are come to as well.
	for (const [tag, { owners, tags }] of ways)
		for (const next of owned.get(tag) ?? [])
			if (!ways.has(next))
				ways.set(next, {
					owners,
					tags:
						tags.length < maxWay
							? [...tags, next]
							: [...tags.slice(0, -1), next],
				});
	return ways;
}

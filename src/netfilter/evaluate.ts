import type { Address } from "../net/ranges.ts";
import { both, either, fitAll } from "./match.ts";
import type {
	BaseChain,
	Destination,
	Family,
	FilterRule,
	PacketFilter,
	Packets,
	Share,
	Verdict,
} from "./packetFilter.ts";

/** A rule, or a chain's policy, that ends the way of packets in its base chain other than by a drop. */
export interface Ending {
	readonly chain: BaseChain;
	/** `undefined`: the policy. */
	readonly rule: FilterRule | undefined;
	/** The chain of its own that the rule hangs in, from the base chain down. */
	readonly path: readonly string[];
	/** Those that end here. */
	readonly packets: Packets;
	readonly share: "all" | "some";
}

/**
 * Follows packets through a base chain: where they end, if not by a drop, and
 * whether some were marked until then.
 *
 * @param wasMarked whether some may have come with a mark
 */
function follow(
	chain: BaseChain,
	packets: Packets,
	wasMarked: boolean,
): { endings: Ending[]; isMarked: boolean } {
	const endings: Ending[] = [];
	let isMarked = wasMarked;
	/** @returns how many come back out of the rules, undecided */
	const walk = (
		rules: readonly FilterRule[],
		entering: Packets,
		share: "all" | "some",
		path: readonly string[],
	): Share => {
		let left: Share = share;
		let returned: Share = "none";
		for (const rule of rules) {
			const fitting = fitAll(rule, entering, isMarked);
			const decided = both(left, fitting.share);
			if (decided === "none") continue;
			if (rule.setsMark) isMarked = true;
			let gone: Share = fitting.share;
			const { verdict } = rule;
			switch (verdict.kind) {
				case "continue":
					continue;
				case "accept":
				case "translate":
				case "unsure":
					endings.push({
						chain,
						rule,
						path,
						packets: fitting.packets,
						share: verdict.kind === "unsure" ? "some" : decided,
					});
					// Some may go on to the rules behind it.
					if (verdict.kind === "unsure") gone = "some";
					break;
				case "drop":
					break;
				case "return":
					returned = decided;
					break;
				case "jump":
				case "goto": {
					const inner = chain.chains.get(verdict.chain);
					// A chain of another kind, or a loop, which the kernel does not have.
					if (inner === undefined || path.length > 64) continue;
					const back = walk(inner, fitting.packets, decided, [
						...path,
						verdict.chain,
					]);
					if (verdict.kind === "goto") {
						if (back !== "none") returned = back;
					} else if (fitting.share === "all") {
						if (back === "none") gone = "all";
						else {
							left = back;
							continue;
						}
					} else if (back !== "none") continue;
				}
			}
			if (gone === "all") {
				left = "none";
				break;
			}
			left = "some";
		}
		if (returned === "none") return left;
		return left === "none" ? returned : returned === "all" ? "all" : left;
	};
	const left = walk(chain.rules, packets, "all", [chain.name]);
	if (chain.accepts && left !== "none")
		endings.push({
			chain,
			rule: undefined,
			path: [chain.name],
			packets,
			share: left,
		});
	return { endings, isMarked };
}

function chainsFor(
	{ baseChains }: PacketFilter,
	hook: string,
	type: BaseChain["type"],
	family: Family,
): BaseChain[] {
	return baseChains.filter(
		(chain) =>
			chain.hook === hook &&
			chain.type === type &&
			(chain.family === "both" || chain.family === family),
	);
}

/**
 * Whether some of the packets may bear a mark, or their connection, by a rule of
 * any table at a hook that they pass. Which hook comes first is not looked at.
 */
function areMarked({ baseChains }: PacketFilter, packets: Packets): boolean {
	return baseChains.some(
		(chain) =>
			["prerouting", "input", "forward"].includes(chain.hook) &&
			(chain.family === "both" || chain.family === packets.family) &&
			follow(chain, packets, false).isMarked,
	);
}

const isSameEnding = (one: Ending, other: Ending) =>
	one.chain === other.chain && one.rule === other.rule;

/** What becomes of packets at some hooks. */
export interface Passage {
	/** How many are let through. */
	readonly share: Share;
	/** The rules and policies that let them through. */
	readonly by: readonly Ending[];
}

function passage(
	chains: readonly BaseChain[],
	packets: Packets,
	isMarked: boolean,
): Passage {
	const endingsIn = (chain: BaseChain, sent: Packets) =>
		follow(chain, sent, isMarked).endings;
	let share: Share = "all";
	const by: Ending[] = [];
	for (const chain of chains) {
		const endings = endingsIn(chain, packets);
		if (endings.length === 0) return { share: "none", by: [] };
		if (endings.every((one) => one.share !== "all")) share = "some";
		by.push(...endings);
	}
	// What fits some only may have been dropped before: those are followed by themselves.
	const confirmed = by.filter(
		(ending) =>
			ending.packets === packets ||
			chains.every((chain) => {
				const endings = endingsIn(chain, ending.packets);
				return chain === ending.chain
					? endings.some((one) => isSameEnding(one, ending))
					: endings.length > 0;
			}),
	);
	const isOpen = chains.every((chain) =>
		confirmed.some((ending) => ending.chain === chain),
	);
	return isOpen ? { share, by: confirmed } : { share: "none", by: [] };
}

/**
 * Whether packets for this host get to its programs, and by which rules: those
 * of INPUT, where UFW's chains hang, or those of other chains where there is
 * none, or where it lets all in and another does not.
 */
export function wayIn(filter: PacketFilter, packets: Packets): Passage {
	return wayToHost(
		filter,
		chainsFor(filter, "prerouting", "filter", packets.family),
		packets,
		areMarked(filter, packets),
	);
}

function wayToHost(
	filter: PacketFilter,
	prerouting: readonly BaseChain[],
	packets: Packets,
	isMarked: boolean,
): Passage {
	const input = chainsFor(filter, "input", "filter", packets.family);
	const { share, by } = passage([...prerouting, ...input], packets, isMarked);
	const atInput = by.filter(({ chain }) => input.includes(chain));
	const isInput = ({ table, name }: BaseChain) =>
		table === "filter" && name === "INPUT";
	const inInput = atInput.filter(({ chain }) => isInput(chain));
	if (inInput.length === 0) return { share, by: atInput };
	// An INPUT that is empty holds nothing back: what does so elsewhere decides.
	const letsAllIn = (chain: BaseChain) =>
		by.some(
			(ending) =>
				ending.chain === chain &&
				ending.share === "all" &&
				ending.packets === packets,
		);
	const decidedElsewhere = inInput.every(
		({ rule, chain }) => rule === undefined && letsAllIn(chain),
	)
		? by.filter(({ chain }) => !letsAllIn(chain))
		: [];
	return {
		share,
		by: decidedElsewhere.length > 0 ? decidedElsewhere : inInput,
	};
}

/** The filter as it is once some commands have taken their rules out. */
export function without(
	{ baseChains }: PacketFilter,
	removals: readonly string[],
): PacketFilter {
	const left = (rules: readonly FilterRule[]) =>
		rules.filter(({ removal }) => !removals.includes(removal));
	return {
		baseChains: baseChains.map((chain) => ({
			...chain,
			rules: left(chain.rules),
			chains: new Map(
				[...chain.chains].map(([name, rules]) => [name, left(rules)]),
			),
		})),
	};
}

/** Packets that are sent on to somewhere else. */
export interface Translation {
	readonly ending: Ending;
	/** As they were sent. */
	readonly packets: Packets;
	readonly to: Destination;
	/** `undefined`: as it was, or not known. */
	readonly port: number | undefined;
	/** How many of them are let through to there. */
	readonly share: Share;
}

/**
 * The packets whose destination is translated (DNAT), and whether they get to
 * the new one.
 *
 * @param isOwn whether an address is this host's
 */
export function translations(
	filter: PacketFilter,
	packets: Packets,
	isOwn: (address: Address) => boolean,
): Translation[] {
	const { family } = packets;
	const wasMarked = areMarked(filter, packets);
	const prerouting = chainsFor(filter, "prerouting", "filter", family);
	return chainsFor(filter, "prerouting", "nat", family)
		.flatMap((chain) => follow(chain, packets, wasMarked).endings)
		.flatMap((ending) => {
			const { packets: sent, rule, chain } = ending;
			// What is not known may lead to a rule that translates.
			const verdict: Verdict =
				rule?.verdict.kind === "unsure"
					? { kind: "translate", to: "unknown", port: undefined }
					: (rule?.verdict ?? { kind: "accept" });
			if (verdict.kind !== "translate") return [];
			const { to } = verdict;
			const isUnknown = to === "unknown";
			const port = isUnknown ? undefined : (verdict.port ?? sent.port);
			const forwarded = to !== undefined && (isUnknown || !isOwn(to));
			const after: Packets = {
				...sent,
				port,
				to: isUnknown ? undefined : to,
				forwarded,
				originalPort: sent.port,
			};
			const isMarked = areMarked(filter, sent) || areMarked(filter, after);
			const isBefore = ({ priority }: BaseChain) => priority < chain.priority;
			const before = passage(prerouting.filter(isBefore), sent, isMarked);
			const late = prerouting.filter((one) => !isBefore(one));
			const onwards = () =>
				passage(
					[...late, ...chainsFor(filter, "forward", "filter", family)],
					after,
					isMarked,
				).share;
			const inwards = (sent: Packets) =>
				wayToHost(filter, late, sent, isMarked).share;
			const share = isUnknown
				? either(onwards(), inwards({ ...after, forwarded: false }))
				: forwarded
					? onwards()
					: inwards(after);
			return {
				ending,
				packets: sent,
				to,
				port,
				share: both(before.share, isUnknown ? both(share, "some") : share),
			};
		});
}

import type { Address, Range } from "../net/ranges.ts";
import { contains, rangeOf } from "./ufwPackets.ts";

/**
 * What the kernel does with packets, by its own rules and not by a program's
 * files. How netfilter decides, as far as it matters here:
 *
 * - A packet for this host meets the base chains of `prerouting` and then those
 *   of `input`, each hook's by priority, no matter by which program: iptables (either
 *   kind) or nftables, UFW, tailscaled, Docker or a person.
 * - An `accept` ends the base chain that it is in and no other: the packet
 *   goes on to the next one. A `drop` ends everything. So a packet is let in
 *   where not one base chain drops it; another table's chain that accepts all,
 *   however early, undoes nothing, and one that drops shuts what UFW allows.
 * - So what undoes UFW is in the base chain that UFW's own hang in, which
 *   is INPUT of `filter`: an accept ahead of them, or behind them in place of
 *   the policy, or nothing at all where they were hooked.
 * - A translated destination (DNAT) takes a packet to `forward` in place of
 *   `input`, unless the new one is this host's, too. UFW's rules for what comes
 *   in never see it: that is how Docker publishes ports.
 */
export interface PacketFilter {
	readonly baseChains: readonly BaseChain[];
}

export type Family = "ipv4" | "ipv6";

export interface BaseChain {
	readonly family: Family | "both";
	readonly table: string;
	readonly name: string;
	readonly type: "filter" | "nat";
	readonly hook: string;
	/** The lower ones of a hook come first. */
	readonly priority: number;
	/** Whether what no rule decides is let through. */
	readonly accepts: boolean;
	readonly rules: readonly FilterRule[];
	/** The others of its table, by name. */
	readonly chains: ReadonlyMap<string, readonly FilterRule[]>;
}

export interface FilterRule {
	/** As the tool prints it. */
	readonly text: string;
	readonly chain: string;
	/** The command that takes it out. */
	readonly removal: string;
	readonly conditions: readonly Condition[];
	/** Whether it marks the packet or its connection, or restores a mark. */
	readonly setsMark: boolean;
	readonly verdict: Verdict;
}

export type Verdict =
	| { readonly kind: "accept" | "drop" | "return" | "continue" }
	/** A program outside of the kernel decides, or something that is not known here. */
	| { readonly kind: "unsure" }
	| { readonly kind: "jump" | "goto"; readonly chain: string }
	| {
			readonly kind: "translate";
			readonly to: Destination;
			/** `undefined`: as it was. */
			readonly port: number | undefined;
	  };

/** Where a translation leads. `undefined`: to this host. `unknown`: to one of several, or what a map says. */
export type Destination = Address | "unknown" | undefined;

/** What a rule looks at. All of its conditions have to hold. */
export type Condition = { readonly negated?: boolean } & (
	| { readonly on: "family"; readonly family: Family }
	| { readonly on: "interfaceIn"; readonly names: readonly string[] }
	| { readonly on: "from" | "to"; readonly ranges: readonly Range[] }
	| { readonly on: "protocol"; readonly names: readonly string[] }
	| {
			readonly on: "port" | "originalPort";
			readonly ranges: readonly (readonly [first: number, last: number])[];
	  }
	| { readonly on: "state"; readonly states: readonly string[] }
	| { readonly on: "toType"; readonly types: readonly string[] }
	| { readonly on: "mark"; readonly value: number; readonly mask: number }
	/** A new connection's first packet: the SYN. */
	| { readonly on: "syn" }
	/** Something that is not known here, or that packets differ in. */
	| { readonly on: "other" }
);

/** Packets that begin a connection to this host. */
export interface Packets {
	readonly family: Family;
	readonly interfaceIn: string;
	readonly protocol: "tcp" | "udp";
	/** `undefined`: to every port there is. */
	readonly port: number | undefined;
	/** What they claim to come from. */
	readonly from: Range;
	/** `undefined`: any of this host's. */
	readonly to?: Address | undefined;
	/** The port that they were sent to, where it was translated. */
	readonly originalPort?: number | undefined;
	/** Whether they go on to another machine, or a container. */
	readonly forwarded?: boolean;
}

/** How many of some packets something is true of, as far as is known. */
export type Share = "all" | "some" | "none";

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

function isInterface(pattern: string, name: string): boolean {
	return pattern.endsWith("+") || pattern.endsWith("*")
		? name.startsWith(pattern.slice(0, -1))
		: pattern === name;
}

const not = (share: Share): Share =>
	share === "all" ? "none" : share === "none" ? "all" : "some";

/** How many of the packets a condition holds for, and the packets that it holds for. */
function fit(
	condition: Condition,
	packets: Packets,
	isMarked: boolean,
): { share: Share; packets: Packets } {
	let share: Share;
	let fitting = packets;
	switch (condition.on) {
		case "family":
			share = condition.family === packets.family ? "all" : "none";
			break;
		case "interfaceIn":
			share = condition.names.some((name) =>
				isInterface(name, packets.interfaceIn),
			)
				? "all"
				: "none";
			break;
		case "from": {
			const { ranges } = condition;
			const inside = ranges.filter((range) => contains(packets.from, range));
			if (ranges.some((range) => contains(range, packets.from))) share = "all";
			else if (inside.length === 0) share = "none";
			else {
				share = "some";
				const [only] = inside;
				if (inside.length === 1 && only !== undefined && !condition.negated)
					fitting = { ...packets, from: only };
			}
			break;
		}
		case "to": {
			const { to } = packets;
			const [only] = condition.ranges;
			if (to === undefined) {
				share = condition.ranges.some(
					([base, bits]) =>
						base.kind() === packets.family &&
						(bits === 0 || !["multicast", "broadcast"].includes(base.range())),
				)
					? condition.ranges.some(([, bits]) => bits === 0)
						? "all"
						: "some"
					: "none";
				if (
					only !== undefined &&
					condition.ranges.length === 1 &&
					contains(rangeOf(only[0].toString()), only) &&
					!condition.negated
				)
					fitting = { ...packets, to: only[0] };
			} else
				share = condition.ranges.some((range) =>
					contains(range, rangeOf(to.toString())),
				)
					? "all"
					: "none";
			break;
		}
		case "protocol":
			share = condition.names.includes(packets.protocol) ? "all" : "none";
			break;
		case "port":
		case "originalPort": {
			const { ranges } = condition;
			const port =
				condition.on === "port"
					? packets.port
					: (packets.originalPort ?? packets.port);
			if (port === undefined) {
				share = ranges.some(([first, last]) => first <= 1 && last >= 65_535)
					? "all"
					: "some";
				const [only] = ranges;
				if (
					ranges.length === 1 &&
					only !== undefined &&
					only[0] === only[1] &&
					!condition.negated
				)
					fitting = { ...packets, port: only[0] };
			} else
				share = ranges.some(([first, last]) => port >= first && port <= last)
					? "all"
					: "none";
			break;
		}
		case "state":
			// Translated packets are told by DNAT, too.
			share =
				condition.states.includes("new") ||
				(condition.states.includes("dnat") &&
					packets.originalPort !== undefined)
					? "all"
					: "none";
			break;
		case "toType":
			share = condition.types.includes(packets.forwarded ? "unicast" : "local")
				? "all"
				: "none";
			break;
		case "mark":
			share = isMarked
				? "some"
				: (0 & condition.mask) === condition.value
					? "all"
					: "none";
			break;
		case "syn":
			share = packets.protocol === "tcp" ? "all" : "none";
			break;
		case "other":
			share = "some";
	}
	return { share: condition.negated ? not(share) : share, packets: fitting };
}

function fitAll(
	{ conditions }: FilterRule,
	packets: Packets,
	isMarked: boolean,
): { share: Share; packets: Packets } {
	let share: Share = "all";
	let fitting = packets;
	for (const condition of conditions) {
		const one = fit(condition, fitting, isMarked);
		if (one.share === "none") return one;
		if (one.share === "some") share = "some";
		fitting = one.packets;
	}
	return { share, packets: fitting };
}

const both = (one: Share, other: Share): Share =>
	one === "none" || other === "none"
		? "none"
		: one === "all" && other === "all"
			? "all"
			: "some";

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
					if (verdict.kind === "unsure") gone = "all";
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
 * of INPUT, where UFW's chains hang, or where there is none those of whatever
 * hangs at its hook.
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
	const inInput = atInput.filter(
		({ chain: { table, name } }) => table === "filter" && name === "INPUT",
	);
	return { share, by: inInput.length > 0 ? inInput : atInput };
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
			const { share } = forwarded
				? passage(
						[...late, ...chainsFor(filter, "forward", "filter", family)],
						after,
						isMarked,
					)
				: wayToHost(filter, late, after, isMarked);
			return {
				ending,
				packets: sent,
				to,
				port,
				share: both(before.share, isUnknown ? both(share, "some") : share),
			};
		});
}

import type { Address, Range } from "../net/ranges.ts";

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

import ipaddr from "ipaddr.js";
import { type Range, tailscaleRanges } from "../net/ranges.ts";
import {
	anywhere,
	isAnywhere,
	type KeptRule,
	type RuleList,
} from "./ufwRules.ts";

export const tailnet = "tailscale0";

/** Packets that begin a connection, all of which a rule may or may not fit. */
export interface Packets {
	readonly port: number;
	readonly protocol: "tcp" | "udp";
	/** Where they come in; `undefined`: anywhere but on tailscale0. */
	readonly interfaceIn: string | undefined;
	readonly from: Range;
}

function portsInclude(ports: string, port: number): boolean {
	return ports.split(",").some((part) => {
		const [first = "", last = first] = part.split(":");
		return part === "any" || (port >= Number(first) && port <= Number(last));
	});
}

export function rangeOf(text: string): Range {
	const [address = "", bits] = text.split("/");
	const base = ipaddr.parse(address);
	return [base, bits === undefined ? base.toByteArray().length * 8 : +bits];
}

export function contains(
	[base, bits]: Range,
	[other, otherBits]: Range,
): boolean {
	return (
		base.kind() === other.kind() &&
		bits <= otherBits &&
		other.match([base, bits] as never)
	);
}

export const isLettingIn = ({ action }: KeptRule) =>
	action === "allow" || action === "limit";

function concerns(rule: KeptRule, { port, protocol }: Packets): boolean {
	return (
		!rule.isRoute &&
		rule.direction === "in" &&
		portsInclude(rule.toPorts, port) &&
		["any", protocol].includes(rule.protocol)
	);
}

/** iptables takes `eth+` for all that begins with `eth`. */
function isInterface(pattern: string, name: string): boolean {
	return pattern.endsWith("+")
		? name.startsWith(pattern.slice(0, -1))
		: pattern === name;
}

/** Whether a rule fits every one of the packets. */
export function fitsAll(rule: KeptRule, packets: Packets): boolean {
	const { interfaceIn } = packets;
	return (
		concerns(rule, packets) &&
		rule.fromPorts === "any" &&
		isAnywhere(rule.to) &&
		(rule.interfaceIn === "" ||
			(interfaceIn !== undefined &&
				isInterface(rule.interfaceIn, interfaceIn))) &&
		contains(rangeOf(rule.from), packets.from)
	);
}

/** Whether a rule may fit one of them. */
export function fitsSome(rule: KeptRule, packets: Packets): boolean {
	const { interfaceIn } = packets;
	const mayFit =
		concerns(rule, packets) &&
		(rule.interfaceIn === "" ||
			(interfaceIn === undefined
				? rule.interfaceIn !== tailnet
				: isInterface(rule.interfaceIn, interfaceIn)));
	if (!mayFit) return false;
	const from = rangeOf(rule.from);
	return contains(from, packets.from) || contains(packets.from, from);
}

type Rules = readonly KeptRule[];

/** Whether the packets are let in, but for those of which a narrower rule speaks. */
export function isOpen(
	rules: Rules,
	packets: Packets,
	otherwise = false,
): boolean {
	const rule = rules.find((one) => fitsAll(one, packets));
	return rule === undefined ? otherwise : isLettingIn(rule);
}

/** Whether every one of the packets is let in. */
export function isSurelyOpen(rules: Rules, packets: Packets): boolean {
	for (const rule of rules) {
		if (isLettingIn(rule)) {
			if (fitsAll(rule, packets)) return true;
		} else if (fitsSome(rule, packets)) return false;
	}
	return false;
}

/** Whether none of the packets is let in, where what no rule speaks of is not. */
export function isSurelyShut(rules: Rules, packets: Packets): boolean {
	for (const rule of rules) {
		if (isLettingIn(rule)) {
			if (fitsSome(rule, packets)) return false;
		} else if (fitsAll(rule, packets)) return true;
	}
	return true;
}

export const everybody = (
	kind: RuleList["kind"],
	port: number,
	protocol: Packets["protocol"] = "tcp",
): Packets => ({
	port,
	protocol,
	interfaceIn: undefined,
	from: rangeOf(anywhere[kind]),
});

export const tailnetRange = (kind: RuleList["kind"]): Range => {
	const range = tailscaleRanges.find(([base]) => base.kind() === kind);
	if (range === undefined) throw new Error(`Tailscale has no range of ${kind}`);
	return range;
};

export const tailnetPeers = (
	kind: RuleList["kind"],
	port: number,
): Packets => ({
	port,
	protocol: "tcp",
	interfaceIn: tailnet,
	from: tailnetRange(kind),
});

import type { Address } from "../net/ranges.ts";
import {
	contains,
	isLettingIn,
	rangeOf,
	tailnet,
	tailnetRange,
} from "./ufwPackets.ts";
import {
	anywhere,
	commandOf,
	type KeptRule,
	type Rule,
	type RuleList,
} from "./ufwRules.ts";

/** Ports that nobody but this host, or the tailnet by the gate and Serve, is to reach. */
export const closedPorts = [11434, 3000, 8080];
/** The gate, and Open WebUI over HTTPS. */
export const tailnetPorts = [11434, 443];

/** A rule of ours; it is in both families, and `from` in its own. */
export interface OwnRule {
	readonly action: "allow" | "deny";
	readonly port: number;
	readonly protocol?: "tcp" | "udp";
	readonly interfaceIn?: string;
	readonly from?: Address;
}

export function keep(rule: OwnRule, kind: RuleList["kind"]): KeptRule {
	return {
		action: rule.action,
		log: "",
		isRoute: false,
		direction: "in",
		interfaceIn: rule.interfaceIn ?? "",
		interfaceOut: "",
		protocol: rule.protocol ?? "any",
		toPorts: String(rule.port),
		to: anywhere[kind],
		fromPorts: "any",
		from: rule.from?.toString() ?? anywhere[kind],
		toApp: "",
		fromApp: "",
	};
}

export const sshRule = (port: number): OwnRule => ({
	action: "allow",
	port,
	protocol: "tcp",
});

/** All but SSH: what is allowed comes before what is denied. */
export function gateRules(ports: readonly number[]): OwnRule[] {
	return [
		...tailnetPorts.map(
			(port): OwnRule => ({
				action: "allow",
				port,
				protocol: "tcp",
				interfaceIn: tailnet,
			}),
		),
		{ action: "allow", port: 41641, protocol: "udp" },
		...closedPorts
			.filter((port) => !ports.includes(port))
			.map((port): OwnRule => ({ action: "deny", port })),
	];
}

export const ownCommand = (rule: OwnRule) =>
	commandOf(keep(rule, rule.from?.kind() ?? "ipv4"));

/** The rules that setup makes where there are none, in their order. */
export function wantedRules(ports: readonly number[]): Rule[] {
	return [...ports.map(sshRule), ...gateRules(ports)].map(ownCommand);
}

/** Whether a rule lets the whole tailnet to every port, or who says that he is of it. */
export function isForTailnet(rule: KeptRule): boolean {
	if (
		!isLettingIn(rule) ||
		rule.isRoute ||
		rule.direction !== "in" ||
		rule.toPorts !== "any"
	)
		return false;
	const from = rangeOf(rule.from);
	const range = tailnetRange(from[0].kind());
	return rule.interfaceIn === tailnet
		? contains(from, range)
		: contains(from, range) && contains(range, from);
}

/** Whether a rule lets others to ports that are to be closed, and to nothing else. */
export function isForClosed(
	rule: KeptRule,
	closed: readonly number[],
): boolean {
	if (!isLettingIn(rule) || rule.isRoute || rule.direction !== "in")
		return false;
	const ports = rule.toPorts.split(",").map((part) => {
		const [first, last = first] = part.split(":");
		return first === last ? Number(first) : Number.NaN;
	});
	return (
		ports.every((port) => closed.includes(port)) &&
		!(
			rule.interfaceIn === tailnet &&
			ports.every((port) => tailnetPorts.includes(port))
		)
	);
}

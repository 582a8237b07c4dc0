import {
	absent,
	finding,
	type Outcome,
	ok,
	unique,
} from "../../doctor/check.ts";
import { wayIn } from "../../netfilter/evaluate.ts";
import { isInterface } from "../../netfilter/match.ts";
import type { BaseChain, FilterRule } from "../../netfilter/packetFilter.ts";
import { contains, tailnetRange } from "../../netfilter/ufwPackets.ts";
import { formatSocket } from "../../system/sockets.ts";
import { describe, type Look } from "./facts.ts";
import { strangers } from "./fixes.ts";

/** A base chain's rules, with those of the chains that every packet is led through. */
function rulesReached({ rules, chains }: BaseChain): FilterRule[] {
	return rules.flatMap((rule) =>
		rule.verdict.kind === "jump" && rule.conditions.length === 0
			? [rule, ...(chains.get(rule.verdict.chain) ?? [])]
			: [rule],
	);
}

export function judgeForged(seen: Look): Outcome {
	const { filter, sockets, hasTailnet, tailnet, gatePort } = seen;
	if (!hasTailnet) return absent(`${tailnet} does not exist`);
	const range = tailnetRange("ipv4");
	const drop = filter.baseChains
		.filter(({ hook }) => ["prerouting", "input"].includes(hook))
		.flatMap(rulesReached)
		.find(
			({ verdict, conditions }) =>
				verdict.kind === "drop" &&
				conditions.every(
					(condition) =>
						condition.on === "from" ||
						condition.on === "interfaceIn" ||
						// nft says it of every rule about IPv4's addresses.
						(condition.on === "family" &&
							condition.family === "ipv4" &&
							!condition.negated),
				) &&
				conditions.some(
					(condition) =>
						condition.on === "from" &&
						!condition.negated &&
						condition.ranges.some((one) => contains(one, range)),
				) &&
				conditions.some(
					(condition) =>
						condition.on === "interfaceIn" &&
						condition.negated &&
						condition.names.some((name) => isInterface(name, tailnet)),
				),
		);
	const trusting = strangers(filter, undefined)
		.flatMap((packets) => wayIn(filter, packets).by)
		.filter(({ packets }) =>
			contains(tailnetRange(packets.family), packets.from),
		);
	if (trusting.length > 0)
		return finding(
			[
				"these let in anyone who says that they are of the tailnet:",
				...unique(trusting.map(describe)),
				...(drop === undefined
					? []
					: [
							"tailscaled's drop rule is there, and leaves some out, such as 100.115.92.0/23, which is ChromeOS's; for IPv6 there is none",
						]),
			],
			{ severity: "high" },
		);
	if (drop !== undefined) return ok(drop.text);
	const bound = sockets.filter(
		({ device, port }) => device === tailnet && port === gatePort,
	);
	return finding(
		[
			`no rule drops what comes from 100.64.0.0/10 elsewhere than on ${tailnet}: tailscaled sets none with --netfilter-mode=off`,
			"no rule lets anybody in for such an address, so UFW drops it like the rest",
			bound.length > 0
				? `the gate's socket is held to ${tailnet} (${bound.map(formatSocket).join(", ")}) and is not reached that way`
				: `nothing that is held to ${tailnet} listens on ${gatePort}: what holds a forged address off there is the firewall and the key`,
		],
		{ fix: "sudo tailscale set --netfilter-mode=on" },
	);
}

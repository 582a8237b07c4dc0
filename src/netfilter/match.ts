import type { Condition, FilterRule, Packets, Share } from "./packetFilter.ts";
import { contains, rangeOf } from "./ufwPackets.ts";

/** Whether an interface is meant by a name or pattern, as iptables (`eth+`) or nft (`eth*`) writes it. */
export function isInterface(pattern: string, name: string): boolean {
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

export function fitAll(
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

export const both = (one: Share, other: Share): Share =>
	one === "none" || other === "none"
		? "none"
		: one === "all" && other === "all"
			? "all"
			: "some";

export const either = (one: Share, other: Share): Share =>
	not(both(not(one), not(other)));

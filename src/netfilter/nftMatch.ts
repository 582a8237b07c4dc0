import { parseRange, type Range } from "../net/ranges.ts";
import type { Condition } from "./packetFilter.ts";

/** A `match` of libnftables-json(5). */
export interface Match {
	readonly op: string;
	readonly left: unknown;
	readonly right: unknown;
}

/** The elements of a set or map of the rule's table, by name; `undefined` where they are not known. */
export type NamedSets = (name: string) => readonly unknown[] | undefined;

/** What stands for all others in a set or map. */
export const anyElement = "*";

/**
 * What has to hold for a match to: all of the conditions of one of these. What
 * it does not know becomes `other`.
 */
export function parseMatch(match: Match, named: NamedSets): Condition[][] {
	const { op, left, right } = match;
	const { concat } = left as { concat?: readonly unknown[] };
	const values = elementsOf(right, named);
	if (concat === undefined) return [conditionsOf(op, left, values)];
	const implied = impliedBy(left);
	if (op !== "==" || values === undefined)
		return [[...implied, { on: "other" }]];
	return values.map((value) => {
		const { concat: parts = [] } = (value ?? {}) as {
			concat?: readonly unknown[];
		};
		return parts.length === concat.length
			? concat.flatMap((key, index) =>
					conditionsOf("==", key, elementsOf(parts[index], named)),
				)
			: [...implied, { on: "other" as const }];
	});
}

/** What holds for every packet that has such a key at all. */
export function impliedBy(key: unknown): Condition[] {
	const { concat, payload } = key as {
		concat?: readonly unknown[];
		payload?: { protocol?: string };
	};
	if (concat !== undefined) return concat.flatMap(impliedBy);
	switch (payload?.protocol) {
		case "ip":
			return [{ on: "family", family: "ipv4" }];
		case "ip6":
			return [{ on: "family", family: "ipv6" }];
		case "tcp":
		case "udp":
		case "icmp":
		case "icmpv6":
			return [{ on: "protocol", names: [payload.protocol] }];
	}
	return [];
}

/** @param values `undefined` where they are not known */
function conditionsOf(
	op: string,
	left: unknown,
	values: readonly unknown[] | undefined,
): Condition[] {
	const unknown: Condition[] = [{ on: "other" }];
	const negated = op === "!=";
	if (!["==", "in", "!="].includes(op)) return unknown;
	const [masked, mask] = (left as { "&"?: [unknown, unknown] })["&"] ?? [left];
	if (mask !== undefined && typeof mask !== "number") return unknown;
	const { meta, payload, ct, fib } = masked as {
		meta?: { key: string };
		payload?: { protocol?: string; field?: string };
		ct?: { key: string };
		fib?: { result: string; flags: string | readonly string[] };
	};
	const implied = impliedBy(masked);
	if (values === undefined) return [...implied, ...unknown];
	if (values.includes(anyElement))
		return negated ? [...implied, ...unknown] : implied;
	if (mask !== undefined && meta?.key !== "mark") return unknown;
	const texts = values.flatMap((value) =>
		typeof value === "string" || typeof value === "number" ? `${value}` : [],
	);
	const isText = texts.length === values.length;
	if (ct?.key === "state")
		return isText ? [{ on: "state", states: texts, negated }] : unknown;
	if (ct?.key === "status")
		return isText && texts.includes("dnat")
			? [{ on: "state", states: ["dnat"], negated }]
			: unknown;
	if (fib?.result === "type" && [fib.flags].flat().includes("daddr"))
		return isText ? [{ on: "toType", types: texts, negated }] : unknown;
	switch (meta?.key) {
		case "iifname":
		case "iif":
			return isText ? [{ on: "interfaceIn", names: texts, negated }] : unknown;
		case "l4proto":
			return isText
				? [{ on: "protocol", names: texts.map(protocolName), negated }]
				: unknown;
		case "nfproto": {
			const [family, ...others] = values;
			return (family === "ipv4" || family === "ipv6") && others.length === 0
				? [{ on: "family", family, negated }]
				: unknown;
		}
		case "mark": {
			const [value, ...others] = values;
			return typeof value === "number" && others.length === 0
				? [{ on: "mark", value, mask: mask ?? 0xffff_ffff, negated }]
				: unknown;
		}
	}
	const { protocol = "", field = "" } = payload ?? {};
	if (protocol === "ip" || protocol === "ip6") {
		if (field === "protocol" || field === "nexthdr")
			return [
				...implied,
				...(isText
					? [
							{
								on: "protocol" as const,
								names: texts.map(protocolName),
								negated,
							},
						]
					: unknown),
			];
		const ranges = values.map(rangeOfValue);
		if (
			(field !== "saddr" && field !== "daddr") ||
			!ranges.every((range) => range !== undefined)
		)
			return [...implied, ...unknown];
		return [
			...implied,
			{ on: field === "saddr" ? "from" : "to", ranges, negated },
		];
	}
	if (["tcp", "udp", "th"].includes(protocol)) {
		const ranges = values.map(portsOfValue);
		return [
			...implied,
			...(field === "dport" && ranges.every((range) => range !== undefined)
				? [{ on: "port" as const, ranges, negated }]
				: unknown),
		];
	}
	// What else they look at, TCP and UDP do not have.
	if (protocol === "icmp" || protocol === "icmpv6") return implied;
	return unknown;
}

/** A number stands in place of the name where /etc/protocols has none. */
const protocolName = (text: string) =>
	text === "6" ? "tcp" : text === "17" ? "udp" : text;

/** A value, or those of a set; `undefined` where a set's are not known. */
export function elementsOf(
	right: unknown,
	named: NamedSets,
): readonly unknown[] | undefined {
	if (typeof right === "string" && right.startsWith("@"))
		return named(right.slice(1))?.map(elementOf);
	const { set = right } = (right ?? {}) as { set?: unknown };
	return [set].flat().map(elementOf);
}

/** An element without its comment, counter or time. */
export function elementOf(value: unknown): unknown {
	const { elem } = (value ?? {}) as { elem?: { val?: unknown } };
	return elem === undefined ? value : elem.val;
}

function rangeOfValue(value: unknown): Range | undefined {
	if (typeof value === "string") return parseRange(value);
	const { prefix } = (value ?? {}) as {
		prefix?: { addr: string; len: number };
	};
	return prefix && parseRange(`${prefix.addr}/${prefix.len}`);
}

function portsOfValue(value: unknown): [number, number] | undefined {
	if (typeof value === "number") return [value, value];
	const { range } = (value ?? {}) as { range?: readonly unknown[] };
	const [first, last] = range ?? [];
	return typeof first === "number" && typeof last === "number"
		? [first, last]
		: undefined;
}

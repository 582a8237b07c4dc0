import type { Answer } from "./nodeAddresses.ts";
import type { Attributes, TailnetPolicy } from "./policyFile.ts";

/**
 * Whether a device with these attributes may use a rule: it has to meet every
 * assertion of one of the postures. Without attributes nothing is known of it.
 *
 * Source: tailscale.com/docs/features/device-posture: an attribute that is
 * absent meets no assertion but NOT SET.
 */
export function meetsPostures(
	postures: readonly string[],
	attributes: Attributes | undefined,
	policy: TailnetPolicy,
): Answer {
	if (postures.length === 0) return "yes";
	if (attributes === undefined) return "unknown";
	const answers = postures.map((name): Answer => {
		const assertions = policy.postures.get(name)?.names;
		return assertions === undefined
			? "unknown"
			: every(assertions.map((text) => meetsAssertion(text, attributes)));
	});
	return answers.includes("yes")
		? "yes"
		: answers.includes("unknown")
			? "unknown"
			: "no";
}

/** Whether all are so: one no is a no. */
export function every(answers: readonly Answer[]): Answer {
	return answers.includes("no")
		? "no"
		: answers.includes("unknown")
			? "unknown"
			: "yes";
}

const pattern =
	/^(?<name>[A-Za-z]+:[\w.-]+)(?:\s*(?<operator>==|!=|<=|>=|<|>|NOT\s+IN|IN|IS\s+SET|NOT\s+SET)\s*(?<operand>.*))?$/is;

/** Reads `node:os == 'macos'`, `node:tsVersion >= '1.40'`, `custom:tier IN ['a', 'b']`, or a name alone. */
function meetsAssertion(text: string, attributes: Attributes): Answer {
	const { name, operator, operand } = pattern.exec(text.trim())?.groups ?? {};
	if (name === undefined) return "unknown";
	const value = attributes.get(name);
	const word = operator?.toUpperCase().replace(/\s+/, " ");
	if (word === "IS SET") return value === undefined ? "no" : "yes";
	if (word === "NOT SET") return value === undefined ? "yes" : "no";
	if (value === undefined) return "no";
	if (word === undefined) return value === true ? "yes" : "no";
	const wanted = parseOperand(operand ?? "");
	if (wanted === undefined) return "unknown";
	if (word === "IN" || word === "NOT IN")
		return Array.isArray(wanted)
			? yesIf(wanted.includes(value) === (word === "IN"))
			: "unknown";
	if (Array.isArray(wanted)) return "unknown";
	if (word === "==") return yesIf(value === wanted);
	if (word === "!=") return yesIf(value !== wanted);
	const order = compare(value, wanted);
	if (order === undefined) return "unknown";
	switch (word) {
		case "<":
			return yesIf(order < 0);
		case "<=":
			return yesIf(order <= 0);
		case ">":
			return yesIf(order > 0);
		default:
			return yesIf(order >= 0);
	}
}

function yesIf(so: boolean): Answer {
	return so ? "yes" : "no";
}

type Value = string | number | boolean;

/** Reads `'1.40'`, `3`, `true`, or a list of them in brackets. */
function parseOperand(text: string): Value | Value[] | undefined {
	const trimmed = text.trim();
	const list = /^\[(.*)\]$/s.exec(trimmed)?.[1];
	if (list === undefined) return parseValue(trimmed);
	const values: Value[] = [];
	for (const part of list.match(/'[^']*'|"[^"]*"|[^,]+/g) ?? []) {
		const value = parseValue(part.trim());
		if (value === undefined) return undefined;
		values.push(value);
	}
	return values;
}

function parseValue(text: string): Value | undefined {
	const quoted = /^'([^']*)'$|^"([^"]*)"$/.exec(text);
	if (quoted !== null) return quoted[1] ?? quoted[2];
	if (text === "true" || text === "false") return text === "true";
	return /^-?\d+(?:\.\d+)?$/.test(text) ? Number(text) : undefined;
}

/** Orders numbers, and versions such as `1.40.2`, part by part; `undefined` for anything else. */
function compare(a: Value, b: Value): number | undefined {
	if (typeof a === "number" && typeof b === "number") return a - b;
	const [left, right] = [versionOf(a), versionOf(b)];
	if (left === undefined || right === undefined) return undefined;
	for (let at = 0; at < Math.max(left.length, right.length); at += 1) {
		const difference = (left[at] ?? 0) - (right[at] ?? 0);
		if (difference !== 0) return difference;
	}
	return 0;
}

function versionOf(value: Value): number[] | undefined {
	return typeof value === "string" && /^\d+(?:\.\d+)*$/.test(value)
		? value.split(".").map(Number)
		: undefined;
}

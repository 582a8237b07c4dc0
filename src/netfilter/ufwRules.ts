/** One rule as a command writes it, without `ufw`, and as `ufw show added` prints it: `deny 11434`. */
export type Rule = string;

/** A rule as UFW keeps it. A rule for an application's profile is there once for each of its ports. */
export interface KeptRule {
	/** `allow`, `limit`, `deny` or `reject`. */
	readonly action: string;
	/** `log`, `log-all`, or empty. */
	readonly log: string;
	readonly isRoute: boolean;
	/** `in` or `out`. */
	readonly direction: string;
	readonly interfaceIn: string;
	readonly interfaceOut: string;
	/** `tcp`, `udp`, …, or `any`. */
	readonly protocol: string;
	readonly toPorts: string;
	readonly to: string;
	readonly fromPorts: string;
	readonly from: string;
	/** Names of profiles, or empty. */
	readonly toApp: string;
	readonly fromApp: string;
}

/** The rules for one of the two families, in their order: UFW takes the first that fits. */
export interface RuleList {
	readonly kind: "ipv4" | "ipv6";
	readonly rules: readonly KeptRule[];
}

/** How UFW keeps "any address". */
export const anywhere = { ipv4: "0.0.0.0/0", ipv6: "::/0" } as const;

/**
 * Reads `user.rules` or `user6.rules`, as UFW reads it itself: by the comments
 * `### tuple ### ACTION PROTOCOL PORT TO PORT FROM [APP APP] DIRECTION`. They
 * tell more than `ufw show added`: the order of each family, and what the
 * profiles open.
 */
export function parseRuleFile(text: string): KeptRule[] {
	return text.split("\n").flatMap((line) => {
		if (!line.startsWith("### tuple ###")) return [];
		const fields = line
			.slice("### tuple ###".length)
			.replace(/ comment=.*$/, "")
			.trim()
			.split(/\s+/);
		const [verb, protocol, toPorts, to, fromPorts, from, ...rest] = fields;
		if (verb === undefined || from === undefined) return [];
		const [, route, action = "", log = ""] =
			/^(route:)?([^_]+)(?:_(.+))?$/.exec(verb) ?? [];
		const way = rest.length % 2 === 1 ? (rest.at(-1) ?? "in") : "in";
		const [toApp = "-", fromApp = "-"] = rest.length >= 2 ? rest : [];
		const app = (name: string) =>
			name === "-" ? "" : name.replaceAll("%20", " ");
		return {
			action,
			log,
			isRoute: route !== undefined,
			direction: way.startsWith("out") ? "out" : "in",
			interfaceIn: /^in_([^!]+)/.exec(way)?.[1] ?? "",
			interfaceOut: /(?:^|!)out_(.+)$/.exec(way)?.[1] ?? "",
			protocol: protocol ?? "any",
			toPorts: toPorts ?? "any",
			to: to ?? "",
			fromPorts: fromPorts ?? "any",
			from,
			toApp: app(toApp),
			fromApp: app(fromApp),
		};
	});
}

export const isAnywhere = (range: string) =>
	range === anywhere.ipv4 || range === anywhere.ipv6;
const quote = (name: string) => (name.includes(" ") ? `'${name}'` : name);

/** Writes a rule as `ufw show added` does (ufw/parser.py, get_command). */
export function commandOf(rule: KeptRule): Rule {
	if (
		isAnywhere(rule.to) &&
		isAnywhere(rule.from) &&
		rule.fromPorts === "any" &&
		rule.fromApp === "" &&
		rule.interfaceIn === "" &&
		rule.interfaceOut === "" &&
		rule.toPorts !== "any"
	) {
		const words = [...(rule.isRoute ? ["route"] : []), rule.action];
		if (rule.direction === "out") words.push("out");
		if (rule.log !== "") words.push(rule.log);
		if (rule.toApp !== "") words.push(quote(rule.toApp));
		else
			words.push(
				rule.protocol === "any"
					? rule.toPorts
					: `${rule.toPorts}/${rule.protocol}`,
			);
		return words.join(" ");
	}
	return longCommand(rule, named(rule.from));
}

/** Writes a rule so that UFW takes it for the one family in which it is kept. */
export function familyCommandOf(rule: KeptRule): Rule {
	// By "any" it would be both.
	return longCommand(rule, rule.from);
}

const named = (range: string) => (isAnywhere(range) ? "any" : range);

/** The form that has a word for everything. @param from by what the source is named */
function longCommand(rule: KeptRule, from: string): Rule {
	const { direction, protocol, interfaceIn, interfaceOut } = rule;
	const words = [...(rule.isRoute ? ["route"] : []), rule.action];
	if (interfaceIn !== "") words.push("in", "on", interfaceIn);
	if (interfaceOut !== "") words.push("out", "on", interfaceOut);
	else if (direction === "out") words.push("out");
	if (rule.log !== "") words.push(rule.log);
	const length = words.length;
	for (const [side, place, ports, app] of [
		["from", from, rule.fromPorts, rule.fromApp],
		["to", named(rule.to), rule.toPorts, rule.toApp],
	] as const) {
		if (place === "any" && ports === "any" && app === "") continue;
		words.push(side, place);
		if (app !== "") words.push("app", quote(app));
		else if (ports !== "any") words.push("port", ports);
	}
	if (words.length === length && interfaceIn === "" && interfaceOut === "")
		words.push("to", "any");
	if (protocol !== "any" && rule.toApp === "" && rule.fromApp === "")
		words.push("proto", protocol);
	return words.join(" ");
}

/** A rule's words, as a program is given them. */
export function wordsOf(rule: Rule): string[] {
	return (rule.match(/'[^']*'|\S+/g) ?? []).map((word) =>
		word.replace(/^'(.*)'$/, "$1"),
	);
}

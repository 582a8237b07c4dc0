import { parseAddress } from "../net/ranges.ts";
import {
	namedSetsOf,
	type Ruleset,
	readWritten,
	type Statement,
	TornListingError,
} from "./nftListing.ts";
import {
	anyElement,
	elementOf,
	elementsOf,
	impliedBy,
	type Match,
	type NamedSets,
	parseMatch,
} from "./nftMatch.ts";
import type {
	BaseChain,
	Condition,
	FilterRule,
	Verdict,
} from "./packetFilter.ts";

const families = { ip: "ipv4", ip6: "ipv6", inet: "both" } as const;

/**
 * Statements that say nothing about where a packet ends. A limit, a quota or an
 * entry that is added to a set is none of them: the rule ends there for packets
 * that go past the limit, or find the set full.
 */
const passing = [
	"counter",
	"log",
	"mangle",
	"comment",
	"notrack",
	"ct helper",
	"ct timeout",
	"flow",
	"tcp option",
];

/**
 * Reads what `nft -j list ruleset` prints: the base chains that packets meet,
 * so none of a table that is dormant.
 *
 * @param written the same as `nft -a list ruleset` prints it, for people
 * @throws TornListingError if a table is not in both
 * @throws if it is something else
 */
export function parseNftables(output: string, written: string): BaseChain[] {
	const { nftables } = JSON.parse(output) as Ruleset;
	if (nftables === undefined) throw new Error("nft printed no ruleset");
	const { texts, flags, moving } = readWritten(written);
	for (const { table } of nftables)
		if (table !== undefined && !flags.has(`${table.family} ${table.name}`))
			throw new TornListingError(
				`nft lists the table ${table.family} ${table.name} once and once not: ask again`,
			);
	const named = namedSetsOf(nftables, moving);
	const chains = new Map<string, Map<string, FilterRule[]>>();
	const tableOf = ({ family, table }: { family: string; table: string }) => {
		const key = `${family} ${table}`;
		const known = chains.get(key) ?? new Map<string, FilterRule[]>();
		chains.set(key, known);
		return known;
	};
	for (const { chain } of nftables)
		if (chain !== undefined) tableOf(chain).set(chain.name, []);
	for (const { rule } of nftables) {
		if (rule === undefined) continue;
		const { family, table, chain, handle, expr } = rule;
		const removal = `sudo nft delete rule ${family} ${table} ${chain} handle ${handle}`;
		for (const part of parseStatements(expr, (name) =>
			named(`${family} ${table}`, name),
		))
			tableOf(rule)
				.get(chain)
				?.push({
					...part,
					chain,
					removal,
					text: `nft ${family} ${table} ${chain}: ${texts.get(`${family} ${table} ${handle}`) ?? `rule ${handle}`}`,
				});
	}
	return nftables.flatMap(({ chain }) => {
		if (chain?.hook === undefined || !(chain.family in families)) return [];
		const { table, name, hook, policy, prio = 0 } = chain;
		if (chain.type !== "filter" && chain.type !== "nat") return [];
		// The kernel asks none of its chains.
		if (flags.get(`${chain.family} ${table}`)?.includes("dormant")) return [];
		const own = tableOf(chain);
		return {
			table,
			name,
			hook,
			type: chain.type,
			chains: own,
			family: families[chain.family as keyof typeof families],
			priority: prio,
			accepts: policy !== "drop",
			rules: own.get(name) ?? [],
		};
	});
}

/** The tables, by family and name, that `nft -j list ruleset` prints, those that are dormant too. */
export function tablesIn(output: string): ReadonlySet<string> {
	const { nftables } = JSON.parse(output) as Ruleset;
	if (nftables === undefined) throw new Error("nft printed no ruleset");
	return new Set(
		nftables.flatMap(({ table }) =>
			table === undefined ? [] : `${table.family} ${table.name}`,
		),
	);
}

/** The chains, by family, table and name, that have a rule in what only iptables reads (`xt` of libnftables-json(5)). */
export function chainsOfXt(output: string): ReadonlySet<string> {
	const { nftables = [] } = JSON.parse(output) as Ruleset;
	return new Set(
		nftables.flatMap(({ rule }) =>
			rule?.expr.some(
				(statement) => typeof statement === "object" && "xt" in statement,
			)
				? `${rule.family} ${rule.table} ${rule.chain}`
				: [],
		),
	);
}

/** So many parts of one rule are looked at one by one; of a rule with more it is not known whom it is for. */
const mostParts = 500;

/** One rule, or several for a map of verdicts or a set of which each element is more than one value. */
function parseStatements(
	statements: readonly (Statement | string)[],
	named: NamedSets,
): Pick<FilterRule, "conditions" | "setsMark" | "verdict">[] {
	const setsMark = statements.some(isMarking);
	/** The conditions by which packets may have come so far. */
	let ways: readonly (readonly Condition[])[] = [[]];
	const parts: ReturnType<typeof parseStatements> = [];
	const end = (verdict: Verdict, isMarking = setsMark) => [
		...parts,
		...ways.map((conditions) => ({ conditions, setsMark: isMarking, verdict })),
	];
	/** @param widely the conditions where these are too many */
	const narrowed = (
		by: readonly (readonly Condition[])[],
		widely: readonly Condition[],
	) =>
		ways.flatMap((way) =>
			(ways.length * by.length > mostParts ? [widely] : by).map(
				(conditions) => [...way, ...conditions],
			),
		);
	for (const statement of statements) {
		// What hides there may let in, and mark.
		if (typeof statement === "string") return end({ kind: "unsure" }, true);
		const [name = ""] = Object.keys(statement);
		const value = statement[name];
		if (name === "match") {
			const match = value as Match;
			ways = narrowed(parseMatch(match, named), [
				...impliedBy(match.left),
				{ on: "other" },
			]);
			continue;
		}
		if (name === "vmap") {
			const { key, data } = value as { key: unknown; data: unknown };
			const implied = impliedBy(key);
			const entries = verdictsIn(data, named);
			const unsure = { setsMark, verdict: { kind: "unsure" } as const };
			if (entries === undefined || entries.length * ways.length > mostParts)
				parts.push(
					...ways.map((way) => ({
						...unsure,
						conditions: [...way, ...implied],
					})),
				);
			else
				for (const [right, verdict] of entries) {
					const by =
						right === anyElement
							? [implied]
							: parseMatch({ op: "==", left: key, right }, named);
					parts.push(
						...narrowed(by, [...implied, { on: "other" }]).map(
							(conditions) => ({
								setsMark,
								conditions,
								verdict: verdictOf(verdict) ?? unsure.verdict,
							}),
						),
					);
				}
			continue;
		}
		const verdict = verdictOf(statement);
		if (verdict !== undefined) return end(verdict);
		if (!passing.includes(name))
			ways = ways.map((way) => [...way, { on: "other" as const }]);
	}
	return end({ kind: "continue" });
}

/** The entries of a map of verdicts, that for all other keys last; `undefined` where they are not known. */
function verdictsIn(
	data: unknown,
	named: NamedSets,
): readonly (readonly [unknown, Statement | string])[] | undefined {
	const entries = elementsOf(data, named);
	if (!entries?.every((entry) => Array.isArray(entry))) return undefined;
	const pairs = entries.map(([key, verdict]): [unknown, Statement | string] => [
		elementOf(key),
		verdict,
	]);
	const isForOthers = ([key]: readonly unknown[]) => key === anyElement;
	return [
		...pairs.filter((pair) => !isForOthers(pair)),
		...pairs.filter(isForOthers),
	];
}

/** Whether a statement is `meta mark set …` or `ct mark set …`. */
function isMarking(statement: Statement | string): boolean {
	if (typeof statement === "string") return false;
	const { key } = (statement.mangle ?? {}) as {
		key?: { meta?: { key: string }; ct?: { key: string } };
	};
	return (key?.meta ?? key?.ct)?.key === "mark";
}

function verdictOf(statement: Statement | string): Verdict | undefined {
	if (typeof statement === "string") return undefined;
	const [name = ""] = Object.keys(statement);
	const value = statement[name] as
		| { target?: string; addr?: unknown; port?: unknown }
		| null
		| undefined;
	switch (name) {
		case "accept":
		case "drop":
		case "return":
		case "continue":
			return { kind: name };
		case "reject":
			return { kind: "drop" };
		case "jump":
		case "goto":
			return { kind: name, chain: value?.target ?? "" };
		case "dnat":
		case "redirect":
			return destination(value?.addr, value?.port);
		case "queue":
		case "tproxy":
		case "synproxy":
			return { kind: "unsure" };
	}
	return undefined;
}

/** What is neither a plain address nor a plain port is looked up: in a map, a range or by chance. */
function destination(addr: unknown, port: unknown): Verdict {
	const isPlain =
		["string", "undefined"].includes(typeof addr) &&
		["number", "undefined"].includes(typeof port);
	return {
		kind: "translate",
		to:
			isPlain && addr === undefined
				? undefined
				: ((isPlain ? parseAddress(String(addr)) : undefined) ?? "unknown"),
		port: typeof port === "number" ? port : undefined,
	};
}

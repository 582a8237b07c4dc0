import { parseAddress } from "../net/ranges.ts";
import { type Match, parseMatch } from "./nftMatch.ts";
import type {
	BaseChain,
	Condition,
	FilterRule,
	Verdict,
} from "./packetFilter.ts";

/** What `nft -j list ruleset` prints, as far as it is read here (libnftables-json(5)). */
interface Ruleset {
	readonly nftables?: readonly {
		readonly table?: { readonly family: string; readonly name: string };
		readonly chain?: {
			readonly family: string;
			readonly table: string;
			readonly name: string;
			readonly type?: string;
			readonly hook?: string;
			readonly prio?: number;
			readonly policy?: string;
		};
		readonly rule?: {
			readonly family: string;
			readonly table: string;
			readonly chain: string;
			readonly handle: number;
			/** A statement that nft has no JSON for is its text, such as a jump to a chain that is written in place. */
			readonly expr: readonly (Statement | string)[];
		};
	}[];
}

type Statement = Readonly<Record<string, unknown>>;

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

/** That the two listings of a ruleset do not go together: one of them broke off, or the rules changed in between. */
export class TornListingError extends Error {}

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
	const { texts, flags } = readWritten(written);
	for (const { table } of nftables)
		if (table !== undefined && !flags.has(`${table.family} ${table.name}`))
			throw new TornListingError(
				`nft lists the table ${table.family} ${table.name} once and once not: ask again`,
			);
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
		for (const part of parseStatements(expr))
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

/** Of a listing for people, what its JSON lacks or, as the flags in nft 1.0.6, garbles. */
function readWritten(written: string) {
	/** The rules, by family, table and handle. */
	const texts = new Map<string, string>();
	/** The flags of each table, by family and name. */
	const flags = new Map<string, readonly string[]>();
	let table = "";
	/** The first line of a rule that takes several. */
	let begun = "";
	for (const line of written.split("\n")) {
		const name = /^table (\S+ \S+) \{/.exec(line)?.[1];
		if (name !== undefined) {
			table = name;
			flags.set(table, []);
		}
		const ofTable = /^\tflags (.+)$/.exec(line)?.[1];
		if (ofTable !== undefined) flags.set(table, ofTable.split(/, */));
		begun = /^\t\t(\S.* \{)$/.exec(line)?.[1] ?? begun;
		const [, text, handle] = /^\t\t(\S.*) # handle (\d+)$/.exec(line) ?? [];
		if (text !== undefined)
			texts.set(`${table} ${handle}`, text === "}" ? `${begun} … }` : text);
	}
	return { texts, flags };
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

/** One rule, or for a map of verdicts one for each of its entries. */
function parseStatements(
	statements: readonly (Statement | string)[],
): Pick<FilterRule, "conditions" | "setsMark" | "verdict">[] {
	const setsMark = statements.some(isMarking);
	const conditions: Condition[] = [];
	const parts: ReturnType<typeof parseStatements> = [];
	for (const statement of statements) {
		// What hides there may let in, and mark.
		if (typeof statement === "string")
			return [
				...parts,
				{ conditions, setsMark: true, verdict: { kind: "unsure" } },
			];
		const [name = ""] = Object.keys(statement);
		const value = statement[name];
		if (name === "match") {
			conditions.push(...parseMatch(value as Match));
			continue;
		}
		if (name === "vmap") {
			const { key, data } = value as { key: unknown; data: unknown };
			const entries = (
				data as { set?: readonly [unknown, Statement | string][] }
			).set;
			if (!Array.isArray(entries)) {
				parts.push({
					conditions: [...conditions],
					setsMark,
					verdict: { kind: "unsure" },
				});
				continue;
			}
			for (const [right, verdict] of entries)
				parts.push({
					setsMark,
					conditions: [
						...conditions,
						...parseMatch({ op: "==", left: key, right }),
					],
					verdict: verdictOf(verdict) ?? { kind: "unsure" },
				});
			continue;
		}
		const verdict = verdictOf(statement);
		if (verdict !== undefined)
			return [...parts, { conditions, setsMark, verdict }];
		if (!passing.includes(name)) conditions.push({ on: "other" });
	}
	return [...parts, { conditions, setsMark, verdict: { kind: "continue" } }];
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

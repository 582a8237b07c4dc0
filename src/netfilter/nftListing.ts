/** What `nft -j list ruleset` prints, as far as it is read here (libnftables-json(5)). */
export interface Ruleset {
	readonly nftables?: readonly {
		readonly set?: NamedSet;
		readonly map?: NamedSet;
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

/** A set, or a map, whose elements are pairs. */
interface NamedSet {
	readonly family: string;
	readonly table: string;
	readonly name: string;
	readonly flags?: string | readonly string[];
	readonly timeout?: number;
	/** None where it is empty. */
	readonly elem?: readonly unknown[];
}

export type Statement = Readonly<Record<string, unknown>>;

/** That the two listings of a ruleset do not go together: one of them broke off, or the rules changed in between. */
export class TornListingError extends Error {}

/** Of a listing for people, what its JSON lacks or, as the flags in nft 1.0.6, garbles. */
export function readWritten(written: string) {
	/** The rules, by family, table and handle. */
	const texts = new Map<string, string>();
	/** The flags of each table, by family and name. */
	const flags = new Map<string, readonly string[]>();
	/** The sets and maps that rules or time may change, by family, table and name. */
	const moving = new Set<string>();
	let table = "";
	let set = "";
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
		set = /^\t(?:set|map) (\S+) \{/.exec(line)?.[1] ?? set;
		if (/^\t\tflags .*\b(?:dynamic|timeout)\b/.test(line))
			moving.add(`${table} ${set}`);
		begun = /^\t\t(\S.* \{)$/.exec(line)?.[1] ?? begun;
		const [, text, handle] = /^\t\t(\S.*) # handle (\d+)$/.exec(line) ?? [];
		if (text !== undefined)
			texts.set(`${table} ${handle}`, text === "}" ? `${begun} … }` : text);
	}
	return { texts, flags, moving };
}

/** So many elements are looked at; who is in a larger set, such as a list of a country's addresses, is not known. */
const mostElements = 1_000;

/**
 * The elements of a table's sets and maps, by its family and name and by theirs;
 * `undefined` where they are not known or may have changed by the next packet.
 *
 * @param moving those that the listing for people says to change
 */
export function namedSetsOf(
	nftables: NonNullable<Ruleset["nftables"]>,
	moving: ReadonlySet<string>,
): (table: string, name: string) => readonly unknown[] | undefined {
	const changing = new Set(moving);
	for (const { rule } of nftables)
		for (const statement of rule?.expr ?? [])
			for (const name of changedBy(statement))
				changing.add(`${rule?.family} ${rule?.table} ${name}`);
	const known = new Map<string, readonly unknown[]>();
	for (const { set, map } of nftables) {
		const one = set ?? map;
		if (one === undefined) continue;
		const { family, table, name, flags = [], timeout, elem = [] } = one;
		const key = `${family} ${table} ${name}`;
		const isMoving =
			changing.has(key) ||
			timeout !== undefined ||
			[flags].flat().some((flag) => ["dynamic", "timeout"].includes(flag));
		if (!isMoving && elem.length <= mostElements) known.set(key, elem);
	}
	return (table, name) => known.get(`${table} ${name}`);
}

/** The sets that a statement adds to or takes from, as far as it says. */
function changedBy(statement: Statement | string): string[] {
	if (typeof statement === "string")
		return [...statement.matchAll(/@([\w.\\/-]+)/g)].map(
			([, name = ""]) => name,
		);
	return ["set", "map"].flatMap((kind) => {
		const { [kind]: name } = (statement[kind] ?? {}) as Record<string, unknown>;
		return typeof name === "string" ? name.replace(/^@/, "") : [];
	});
}

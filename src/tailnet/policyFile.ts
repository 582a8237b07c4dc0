import {
	type Node,
	type ParseError,
	parseTree,
	printParseErrorCode,
} from "jsonc-parser";
import {
	BadFileError,
	joinPath,
	type Mistake,
	quote,
} from "../config/strictJson.ts";

/** A place in the file, as people name it. */
export interface Place {
	/** `grants[0]`, `acls[2].dst[1]`. */
	readonly at: string;
	/** Counted from 1. */
	readonly line: number;
}

/** Ports of one protocol that a rule opens, both ends included. */
export interface PortSpec {
	/** As the file writes it. */
	readonly text: string;
	/** `any` is what Tailscale takes when none is named: TCP, UDP and ICMP. */
	readonly protocol: "any" | "tcp" | "icmp" | "other";
	readonly first: number;
	readonly last: number;
}

/** Where a rule leads: a selector and the ports opened on it. */
export interface Target {
	readonly host: string;
	readonly ports: readonly PortSpec[];
}

/** A grant, or an entry of `acls`: both say that sources may open ports on targets. */
export interface Rule extends Place {
	readonly sources: readonly string[];
	readonly targets: readonly Target[];
}

/** A list of names that stands at one place. */
export interface NameList extends Place {
	readonly names: readonly string[];
}

/** What a tailnet policy file says about who reaches what. */
export interface TailnetPolicy {
	readonly rules: readonly Rule[];
	/** Whether there is a `grants` or an `acls` section, be it empty. */
	readonly hasRuleSection: boolean;
	/** Tailscale SSH: who, and to which destinations. */
	readonly ssh: readonly { sources: readonly string[]; hosts: NameList }[];
	readonly groups: ReadonlyMap<string, NameList>;
	readonly hosts: ReadonlyMap<string, string>;
	readonly ipsets: ReadonlyMap<string, NameList>;
	readonly tagOwners: ReadonlyMap<string, NameList>;
	/** Where `nodeAttrs` gives the attribute `funnel`. */
	readonly funnel: readonly NameList[];
	/** How many entries `tests` has, and every source and destination in them. */
	readonly tests: { count: number; names: readonly string[] };
	/** Every tag that is used anywhere, and where it is first. */
	readonly usedTags: ReadonlyMap<string, Place>;
	/** Names that stand twice in one object; only one counts for Tailscale, both are read here. */
	readonly duplicates: readonly Place[];
	/** What was not understood, and so is not in `rules`. */
	readonly notUnderstood: readonly (Place & { message: string })[];
}

/**
 * Reads a tailnet policy file, in HuJSON: JSON with comments and trailing
 * commas. Names of sections and fields match whatever their case, as in Go's
 * encoding/json, since old policies write `ACLs`, `Users` and `Ports`.
 *
 * It does not validate as Tailscale does. What it cannot read it lists in
 * `notUnderstood`; it never passes over it.
 *
 * Source: tailscale.com/docs/reference/syntax/policy-file and …/grants; and
 * what Tailscale itself made of policies, as recorded in headscale's
 * hscontrol/policy/v2/testdata.
 *
 * @throws {BadFileError} with line numbers, if the text is no HuJSON object
 */
export function parseTailnetPolicy(text: string, file: string): TailnetPolicy {
	// A byte order mark becomes a space, so that offsets stay right.
	const content = text.replace(/^\uFEFF/, " ");
	const lineAt = (offset: number) =>
		content.slice(0, offset).split("\n").length;
	const errors: ParseError[] = [];
	let root: Node | undefined;
	try {
		root = parseTree(content, errors, {
			allowTrailingComma: true,
			disallowComments: false,
		});
	} catch (error) {
		// The parser calls itself for each level.
		if (!(error instanceof RangeError)) throw error;
		throw new BadFileError(file, [
			{ path: "", message: "it nests too deeply" },
		]);
	}
	const mistakes: Mistake[] = errors.map(({ error, offset }) => ({
		path: "",
		message: `not valid HuJSON (${printParseErrorCode(error)})`,
		line: lineAt(offset),
	}));
	if (mistakes.length > 0) throw new BadFileError(file, mistakes);
	if (root?.type !== "object")
		throw new BadFileError(file, [
			{ path: "", message: "expected a policy: an object { … }", line: 1 },
		]);
	return readPolicy(root, lineAt);
}

type Path = readonly (string | number)[];

/** A value and where it stands. */
interface Item {
	readonly node: Node;
	readonly path: Path;
}

/** Sections whose strings may name tags. `app` is left out: its values are the application's own. */
const sectionsWithTags = [
	"grants",
	"acls",
	"ssh",
	"nodeattrs",
	"autoapprovers",
	"tests",
	"sshtests",
	"tagowners",
];

function readPolicy(
	root: Node,
	lineAt: (offset: number) => number,
): TailnetPolicy {
	const whole: Item = { node: root, path: [] };
	const notUnderstood: (Place & { message: string })[] = [];
	const placeOf = ({ node, path }: Item): Place => ({
		at: joinPath(path),
		line: lineAt(
			node.parent?.type === "property" ? node.parent.offset : node.offset,
		),
	});
	const refuse = (item: Item, message: string) =>
		notUnderstood.push({ ...placeOf(item), message });

	const strings = (item: Item): string[] => {
		if (item.node.type !== "array") {
			refuse(item, "expected a list of names");
			return [];
		}
		return elementsOf(item).flatMap((element) => {
			if (element.node.type === "string") return [String(element.node.value)];
			refuse(element, "expected a name in quotes");
			return [];
		});
	};
	const list = (item: Item): NameList => ({
		...placeOf(item),
		names: strings(item),
	});
	/** The objects of a section that is a list of objects. */
	const entries = (name: string): Item[] => {
		return fields(whole, name).flatMap((section) => {
			if (section.node.type !== "array") {
				refuse(section, "expected a list of objects");
				return [];
			}
			return elementsOf(section).filter((entry) => {
				if (entry.node.type === "object") return true;
				refuse(entry, "expected an object { … }");
				return false;
			});
		});
	};
	/** The entries of a section that is an object of named things. */
	const named = (name: string): [string, Item][] => {
		return fields(whole, name).flatMap((section): [string, Item][] => {
			if (section.node.type === "object")
				return propertiesOf(section).map(([key, value]) => [key, value]);
			refuse(section, "expected an object { … }");
			return [];
		});
	};
	const required = (entry: Item, ...names: string[]): string[] => {
		const found = names.flatMap((name) => fields(entry, name));
		if (found.length > 0) return found.flatMap(strings);
		refuse(entry, `${names[0]} is missing`);
		return [];
	};

	const readGrant = (entry: Item): Rule => {
		const ports: PortSpec[] = [];
		for (const text of fields(entry, "ip").flatMap(strings)) {
			const specs = parseGrantPorts(text);
			if (specs === undefined)
				refuse(
					entry,
					`${quote(text)} names no ports; write "tcp:443", "443", "tcp:80-443", "tcp:*" or "*"`,
				);
			else ports.push(...specs);
		}
		if (
			ports.length === 0 &&
			fields(entry, "ip").length + fields(entry, "app").length === 0
		)
			refuse(entry, "it has neither ip nor app");
		return {
			...placeOf(entry),
			sources: required(entry, "src"),
			targets: required(entry, "dst").map((host) => ({ host, ports })),
		};
	};
	const readAcl = (entry: Item): Rule => {
		const action = field(entry, "action")?.node.value;
		if (action !== "accept")
			refuse(
				entry,
				`action ${quote(action)} is not "accept", the only one that there is`,
			);
		const proto = field(entry, "proto");
		const protocol = parseProtocol(proto?.node.value ?? "");
		if (protocol === undefined)
			refuse(
				proto ?? entry,
				`${quote(proto?.node.value)} is no protocol such as "tcp"`,
			);
		const targets: Target[] = [];
		for (const text of required(entry, "dst", "ports")) {
			const target = parseAclDestination(text, protocol ?? "any");
			if (target === undefined)
				refuse(
					entry,
					`dst ${quote(text)} is not host:ports, such as "tag:ai-server:443"`,
				);
			else targets.push(target);
		}
		return {
			...placeOf(entry),
			sources: required(entry, "src", "users"),
			targets,
		};
	};

	const rules = [
		...entries("grants").map(readGrant),
		...entries("acls").map(readAcl),
	];
	const ssh = entries("ssh").map((entry) => ({
		sources: required(entry, "src"),
		hosts: { ...placeOf(entry), names: required(entry, "dst") },
	}));
	const funnel = entries("nodeAttrs").flatMap((entry) => {
		return fields(entry, "attr").flatMap(strings).includes("funnel")
			? [{ ...placeOf(entry), names: required(entry, "target") }]
			: [];
	});
	const hosts = new Map<string, string>();
	for (const [name, item] of named("hosts"))
		if (item.node.type === "string") hosts.set(name, String(item.node.value));
		else refuse(item, "expected an address or a range in quotes");
	const lists = (name: string) =>
		new Map(named(name).map(([key, item]) => [key, list(item)] as const));
	const tests = entries("tests");
	return {
		rules,
		hasRuleSection:
			field(whole, "grants") !== undefined ||
			field(whole, "acls") !== undefined,
		ssh,
		groups: lists("groups"),
		hosts,
		ipsets: lists("ipsets"),
		tagOwners: lists("tagOwners"),
		funnel,
		tests: {
			count: tests.length,
			names: tests.flatMap((entry) => stringsIn(entry).map(({ text }) => text)),
		},
		usedTags: findTags(whole, placeOf),
		duplicates: findDuplicates(whole, placeOf),
		notUnderstood,
	};
}

function propertiesOf({ node, path }: Item): [string, Item, Node][] {
	return (node.children ?? []).flatMap((property) => {
		const [key, value] = property.children ?? [];
		const name = String(key?.value);
		return value === undefined
			? []
			: [[name, { node: value, path: [...path, name] }, property]];
	});
}

function elementsOf({ node, path }: Item): Item[] {
	return (node.children ?? []).map((child, index) => ({
		node: child,
		path: [...path, index],
	}));
}

/**
 * Every field of a name, whatever its case; `null` counts as absent. Where one
 * stands twice both are judged, since the file does not say which one counts.
 */
function fields(item: Item, name: string): Item[] {
	return propertiesOf(item)
		.filter(
			([key, { node }]) =>
				key.toLowerCase() === name.toLowerCase() && node.type !== "null",
		)
		.map(([, value]) => value);
}

/** The last field of a name, as in Go. */
function field(item: Item, name: string): Item | undefined {
	return fields(item, name).at(-1);
}

function stringsIn(item: Item): { text: string; item: Item }[] {
	if (item.node.type === "string")
		return [{ text: String(item.node.value), item }];
	if (item.node.type === "array") return elementsOf(item).flatMap(stringsIn);
	return propertiesOf(item).flatMap(([name, value]) =>
		name.toLowerCase() === "app" ? [] : stringsIn(value),
	);
}

function findTags(
	root: Item,
	placeOf: (item: Item) => Place,
): Map<string, Place> {
	const tags = new Map<string, Place>();
	for (const [name, section] of propertiesOf(root)) {
		if (!sectionsWithTags.includes(name.toLowerCase())) continue;
		for (const { text, item } of stringsIn(section)) {
			// Destinations of acls and tests carry a port behind the tag.
			const tag = /^tag:[A-Za-z0-9-]+/.exec(text)?.[0];
			if (tag !== undefined && !tags.has(tag)) tags.set(tag, placeOf(item));
		}
	}
	return tags;
}

/** Sections and fields of entries are the same name whatever their case; a group's or a host's name is not. */
function findDuplicates(root: Item, placeOf: (item: Item) => Place): Place[] {
	const places: Place[] = [];
	const visit = (item: Item) => {
		const isEntry = typeof item.path.at(-1) === "number";
		const seen = new Set<string>();
		for (const [name, value] of item.node.type === "object"
			? propertiesOf(item)
			: []) {
			const known =
				item.path.length === 0 || isEntry ? name.toLowerCase() : name;
			if (seen.has(known)) places.push(placeOf(value));
			seen.add(known);
			visit(value);
		}
		if (item.node.type === "array")
			for (const one of elementsOf(item)) visit(one);
	};
	visit(root);
	return places;
}

const otherProtocols = new Set(
	"igmp ipv4 ip-in-ip egp igp udp gre esp ah sctp fc".split(" "),
);

/**
 * Reads `proto` of an acl, or what stands before the colon in a grant's `ip`:
 * a name or an IANA number. Absent means TCP, UDP and ICMP.
 */
function parseProtocol(value: unknown): PortSpec["protocol"] | undefined {
	if (typeof value !== "string") return undefined;
	const name = value.toLowerCase();
	if (name === "") return "any";
	if (name === "tcp" || name === "6") return "tcp";
	if (["icmp", "1", "ipv6-icmp", "58"].includes(name)) return "icmp";
	const isNumber = /^[1-9]\d{0,2}$/.test(name) && Number(name) <= 255;
	return isNumber || otherProtocols.has(name) ? "other" : undefined;
}

/** Reads `*`, `443`, `80-443` or several of them with commas between; `undefined` if it is none. */
function parsePorts(
	text: string,
	protocol: PortSpec["protocol"],
	whole: string,
): PortSpec[] | undefined {
	if (text === "*") return [{ text: whole, protocol, first: 0, last: 65_535 }];
	const specs: PortSpec[] = [];
	for (const part of text.split(",")) {
		const [, from = "", to = from] =
			/^ *(\d{1,5})(?:-(\d{1,5}))? *$/.exec(part) ?? [];
		if (from === "") return undefined;
		const [first, last] = [Number(from), Number(to)];
		if (first > last || last > 65_535) return undefined;
		specs.push({ text: whole, protocol, first, last });
	}
	return specs;
}

/** Reads an item of a grant's `ip`. */
export function parseGrantPorts(text: string): PortSpec[] | undefined {
	const at = text.lastIndexOf(":");
	if (at === -1) return parsePorts(text, "any", text);
	const protocol = at === 0 ? undefined : parseProtocol(text.slice(0, at));
	return protocol === undefined
		? undefined
		: parsePorts(text.slice(at + 1), protocol, text);
}

/** Reads an item of an acl's `dst`, `host:ports`; an IPv6 host may stand in brackets. */
export function parseAclDestination(
	text: string,
	protocol: PortSpec["protocol"],
): Target | undefined {
	const at = text.lastIndexOf(":");
	if (at <= 0) return undefined;
	const ports = parsePorts(text.slice(at + 1), protocol, text.slice(at + 1));
	const host = text.slice(0, at).replace(/^\[(.*)\]/, "$1");
	return ports === undefined ? undefined : { host, ports };
}

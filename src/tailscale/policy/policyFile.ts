import { quote } from "../../config/strictJson.ts";
import {
	elementsOf,
	field,
	fields,
	type HuJson,
	type Item,
	type Place,
	parseHuJson,
	propertiesOf,
	quoteItem,
	textOf,
	trimBlanks,
} from "./huJson.ts";
import {
	type PortSpec,
	type Protocol,
	parseAclDestination,
	parseGrantPorts,
	parseProtocol,
	type Target,
} from "./ports.ts";
import { findRefusals, type Refusal } from "./refused.ts";

/** A grant, or an entry of `acls`: both say that sources may open ports on targets. */
export interface Rule extends Place {
	readonly sources: readonly string[];
	readonly targets: readonly Target[];
	/** Of these names of `postures` one must hold of the source; none means any device. */
	readonly postures: readonly string[];
	/** Whether it is for what lies behind routers of a tag. */
	readonly isRouted: boolean;
}

/** An entry of `ssh`. */
export interface SshRule extends Place {
	readonly isCheck: boolean;
	readonly sources: readonly string[];
	readonly hosts: readonly string[];
	/** Whom a source may log in as. */
	readonly users: readonly string[];
	readonly postures: readonly string[];
}

/** A list of names that is at one place. */
export interface NameList extends Place {
	readonly names: readonly string[];
}

/** A name at its place. */
export interface NameAt extends Place {
	readonly name: string;
}

/** What a device says of itself; a value that is not a text, number or truth value is left out. */
export type Attributes = ReadonlyMap<string, string | number | boolean>;

/** An entry of `tests`: ports that a source must be able to open, or must not. */
export interface PolicyTest extends Place {
	readonly source: string;
	/** `undefined` where the file names one that there is not. */
	readonly protocol: Protocol | undefined;
	/** `undefined` where the entry has no `srcPostureAttrs`. */
	readonly attributes: Attributes | undefined;
	readonly accept: readonly NameAt[];
	readonly deny: readonly NameAt[];
}

/** An entry of `sshTests`: users whom a source must be able to log in as, or must not. */
export interface SshTest extends Place {
	readonly source: string;
	readonly attributes: Attributes | undefined;
	readonly hosts: readonly NameAt[];
	readonly accept: readonly NameAt[];
	readonly check: readonly NameAt[];
	readonly deny: readonly NameAt[];
}

/** What a tailnet policy file says about who reaches what. */
export interface TailnetPolicy {
	readonly rules: readonly Rule[];
	/** Whether there is a `grants` or an `acls` section, be it empty. */
	readonly hasRuleSection: boolean;
	/** Tailscale SSH. */
	readonly ssh: readonly SshRule[];
	readonly groups: ReadonlyMap<string, NameList>;
	readonly hosts: ReadonlyMap<string, string>;
	readonly ipsets: ReadonlyMap<string, NameList>;
	readonly tagOwners: ReadonlyMap<string, NameList>;
	/** What each posture asks for. */
	readonly postures: ReadonlyMap<string, NameList>;
	/** Where `nodeAttrs` gives the attribute `funnel`. */
	readonly funnel: readonly NameList[];
	readonly tests: readonly PolicyTest[];
	readonly sshTests: readonly SshTest[];
	/** Every tag that is used anywhere, and where it is first. */
	readonly usedTags: ReadonlyMap<string, Place>;
	/** Names that stand twice in one object; only one counts for Tailscale, both are read here. */
	readonly duplicates: readonly Place[];
	/** What was not understood, and so is not in `rules`. */
	readonly notUnderstood: readonly (Place & { message: string })[];
	/** What Tailscale refuses to save, and so puts in force no part of. */
	readonly refused: readonly Refusal[];
}

/**
 * Reads a tailnet policy file, in HuJSON. Names of sections and fields match
 * whatever their case, as in Go's encoding/json, since old policies write
 * `ACLs`, `Users` and `Ports`. Blanks around a name do not count, as Tailscale
 * takes them off.
 *
 * It does not validate as Tailscale does. What it cannot read it lists in
 * `notUnderstood`; it never passes over it.
 *
 * Source: tailscale.com/docs/reference/syntax/policy-file and …/grants; and
 * what Tailscale itself made of policies, as recorded in headscale's
 * hscontrol/policy/v2/testdata.
 *
 * @throws {BadFileError} with line numbers, if the text is not a HuJSON object
 */
export function parseTailnetPolicy(text: string, file: string): TailnetPolicy {
	return readPolicy(parseHuJson(text, file));
}

/** Sections whose strings may name tags. `app` is left out: its values are the application's own. */
const sectionsWithTags = new Set([
	"grants",
	"acls",
	"ssh",
	"nodeattrs",
	"autoapprovers",
	"tests",
	"sshtests",
	"tagowners",
]);

function readPolicy({ root, placeOf }: HuJson): TailnetPolicy {
	const notUnderstood: (Place & { message: string })[] = [];
	const refuse = (item: Item, message: string) =>
		notUnderstood.push({ ...placeOf(item), message });

	const eachName = (item: Item, take: (name: string, at: Item) => void) => {
		if (item.node.type !== "array") refuse(item, "expected a list of names");
		for (const element of elementsOf(item)) {
			const text = textOf(element);
			if (text === undefined) refuse(element, "expected a name in quotes");
			else take(trimBlanks(text), element);
		}
	};
	const strings = (item: Item): string[] => {
		const names: string[] = [];
		eachName(item, (name) => names.push(name));
		return names;
	};
	const list = (item: Item): NameList => ({
		...placeOf(item),
		names: strings(item),
	});
	/** The objects of a section that is a list of objects. */
	const entries = (name: string): Item[] => {
		return fields(root, name).flatMap((section) => {
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
	const named = (name: string): (readonly [string, Item])[] => {
		return fields(root, name).flatMap((section): readonly [string, Item][] => {
			if (section.node.type === "object") return propertiesOf(section);
			refuse(section, "expected an object { … }");
			return [];
		});
	};
	const lists = (name: string) =>
		new Map(named(name).map(([key, item]) => [key, list(item)] as const));
	const optional = (entry: Item, ...names: string[]): string[] => {
		const found: string[] = [];
		for (const name of names)
			for (const item of fields(entry, name))
				eachName(item, (text) => found.push(text));
		return found;
	};
	const required = (entry: Item, ...names: string[]): string[] => {
		if (names.every((name) => fields(entry, name).length === 0))
			refuse(entry, `${names[0]} is missing`);
		return optional(entry, ...names);
	};

	const defaultPostures = fields(root, "defaultSrcPosture").flatMap(strings);
	const posturesOf = (entry: Item): string[] => {
		return field(entry, "srcPosture") === undefined
			? defaultPostures
			: optional(entry, "srcPosture");
	};
	const readGrant = (entry: Item): Rule => {
		const ports: PortSpec[] = [];
		for (const text of optional(entry, "ip")) {
			const specs = parseGrantPorts(text);
			if (specs === undefined)
				refuse(
					entry,
					`${quote(text)} names no ports; write "tcp:443", "443", "tcp:80-443", "tcp:*" or "*"`,
				);
			else ports.push(...specs);
		}
		return {
			...placeOf(entry),
			sources: required(entry, "src"),
			targets: required(entry, "dst").map((host) => ({ host, ports })),
			postures: posturesOf(entry),
			isRouted: optional(entry, "via").length > 0,
		};
	};
	const readAcl = (entry: Item): Rule => {
		const action = field(entry, "action");
		if (textOf(action) !== "accept")
			refuse(
				entry,
				`action ${quoteItem(action)} is not "accept", the only one that there is`,
			);
		const proto = field(entry, "proto");
		const protocol = parseProtocol(proto?.node.value ?? "");
		if (protocol === undefined)
			refuse(
				proto ?? entry,
				`${quoteItem(proto)} is not a protocol such as "tcp"`,
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
			postures: posturesOf(entry),
			isRouted: false,
		};
	};
	const readSsh = (entry: Item): SshRule => ({
		...placeOf(entry),
		isCheck: trimBlanks(textOf(field(entry, "action")) ?? "") === "check",
		// Without one of them an entry says nothing, and is not a mistake either.
		sources: optional(entry, "src"),
		hosts: optional(entry, "dst"),
		users: optional(entry, "users"),
		postures: optional(entry, "srcPosture"),
	});

	const assertions = (entry: Item, ...names: string[]): NameAt[] => {
		const found: NameAt[] = [];
		for (const list of names.flatMap((name) => fields(entry, name)))
			eachName(list, (name, at) => found.push({ ...placeOf(at), name }));
		return found;
	};
	const attributesOf = (entry: Item): Attributes | undefined => {
		const attributes = new Map<string, string | number | boolean>();
		const found = fields(entry, "srcPostureAttrs");
		for (const [name, { node }] of found.flatMap(propertiesOf))
			if (["string", "number", "boolean"].includes(node.type))
				attributes.set(name, node.value);
		return found.length === 0 ? undefined : attributes;
	};
	const sourceOf = (source: Item | undefined): string => {
		const text = textOf(source);
		if (source !== undefined && text === undefined)
			refuse(source, "a test has one src, in quotes");
		return trimBlanks(text ?? "");
	};
	const readTest = (entry: Item): PolicyTest => ({
		...placeOf(entry),
		source: sourceOf(field(entry, "src") ?? field(entry, "user")),
		protocol: parseProtocol(field(entry, "proto")?.node.value ?? ""),
		attributes: attributesOf(entry),
		accept: assertions(entry, "accept", "allow"),
		deny: assertions(entry, "deny"),
	});
	const readSshTest = (entry: Item): SshTest => ({
		...placeOf(entry),
		source: sourceOf(field(entry, "src")),
		attributes: attributesOf(entry),
		hosts: assertions(entry, "dst"),
		accept: assertions(entry, "accept"),
		check: assertions(entry, "check"),
		deny: assertions(entry, "deny"),
	});

	const rules = [
		...entries("grants").map(readGrant),
		...entries("acls").map(readAcl),
	];
	const funnel = entries("nodeAttrs").flatMap((entry) => {
		return optional(entry, "attr").includes("funnel")
			? [{ ...placeOf(entry), names: required(entry, "target") }]
			: [];
	});
	const hosts = new Map<string, string>();
	for (const [name, item] of named("hosts")) {
		const text = textOf(item);
		if (text !== undefined) hosts.set(name, trimBlanks(text));
		else refuse(item, "expected an address or a range in quotes");
	}
	const postures = new Map<string, NameList>();
	// One may also be an object that says what to show to people.
	for (const [name, item] of named("postures"))
		postures.set(name, list(field(item, "assertions") ?? item));
	return {
		rules,
		hasRuleSection:
			field(root, "grants") !== undefined || field(root, "acls") !== undefined,
		ssh: entries("ssh").map(readSsh),
		groups: lists("groups"),
		hosts,
		ipsets: lists("ipsets"),
		tagOwners: lists("tagOwners"),
		postures,
		funnel,
		tests: entries("tests").map(readTest),
		sshTests: entries("sshTests").map(readSshTest),
		usedTags: findTags(root, placeOf),
		duplicates: findDuplicates(root, placeOf),
		notUnderstood,
		refused: findRefusals(root, placeOf),
	};
}

function findTags(
	root: Item,
	placeOf: (item: Item) => Place,
): Map<string, Place> {
	const tags = new Map<string, Place>();
	for (const [name, section] of propertiesOf(root)) {
		if (!sectionsWithTags.has(name.toLowerCase())) continue;
		const visit = (item: Item): void => {
			const text = textOf(item);
			if (text === undefined) {
				for (const element of elementsOf(item)) visit(element);
				for (const [key, value] of propertiesOf(item))
					if (key.toLowerCase() !== "app") visit(value);
				return;
			}
			// Destinations of acls and tests carry a port behind the tag.
			const tag = /^\s*(tag:[^\s:]+)/.exec(text)?.[1];
			if (tag !== undefined && !tags.has(tag)) tags.set(tag, placeOf(item));
		};
		visit(section);
	}
	return tags;
}

/** Sections and fields of entries are the same name whatever their case; a group's or a host's name is not. */
function findDuplicates(root: Item, placeOf: (item: Item) => Place): Place[] {
	const places: Place[] = [];
	const visit = (item: Item) => {
		const isEntry = item.name === undefined || typeof item.name === "number";
		const properties = propertiesOf(item);
		const seen = properties.length > 1 ? new Set<string>() : undefined;
		for (const [name, value] of properties) {
			const known = isEntry ? name.toLowerCase() : name;
			if (seen?.has(known)) places.push(placeOf(value));
			seen?.add(known);
			if (value.node.children !== undefined) visit(value);
		}
		for (const element of elementsOf(item))
			if (element.node.children !== undefined) visit(element);
	};
	visit(root);
	return places;
}

import {
	type Node,
	type ParseError,
	parseTree,
	printParseErrorCode,
} from "jsonc-parser";
import { joinPath, quote } from "../../config/strictJson.ts";
import { BadFileError, type Mistake } from "../../errors.ts";

/** A place in the file, as people name it. */
export interface Place {
	/** `grants[0]`, `acls[2].dst[1]`. */
	readonly at: string;
	/** Counted from 1. */
	readonly line: number;
}

/** A value in the file. Its path is worked out by `placeOf`, and only where it is wanted. */
export interface Item {
	readonly node: Node;
	/** Its name or number in what holds it; absent for the whole file. */
	readonly name?: string | number;
	readonly within?: Item;
	/** What it holds, once it was asked for. */
	properties?: readonly [string, Item][];
	elements?: readonly Item[];
}

/** A parsed file and the places in it. */
export interface HuJson {
	readonly root: Item;
	placeOf(item: Item): Place;
}

/** So many mistakes are listed: after the first, most are what follows from it. */
const maxMistakes = 20;

/** Deeper than any policy goes; what walks a file may call itself for each level. */
const maxDepth = 500;

/**
 * Parses HuJSON: JSON with comments and trailing commas.
 *
 * @throws {BadFileError} with line numbers, if the text is not a HuJSON object
 */
export function parseHuJson(text: string, file: string): HuJson {
	// A byte order mark becomes a space, so that offsets stay right.
	const content = text.replace(/^\uFEFF/, " ");
	if (content.trim() === "")
		throw new BadFileError(file, [
			{
				path: "",
				message:
					"it is empty; as a policy that would let everything through (see: llamagate policy print)",
			},
		]);
	const lineAt = lineFinder(content);
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
		throw tooDeep(file);
	}
	const mistakes: Mistake[] = errors
		.slice(0, maxMistakes)
		.map(({ error, offset }) => ({
			path: "",
			message: `not valid HuJSON (${printParseErrorCode(error)})`,
			line: lineAt(offset),
		}));
	if (mistakes.length > 0) throw new BadFileError(file, mistakes);
	if (root?.type !== "object")
		throw new BadFileError(file, [
			{ path: "", message: "expected a policy: an object { … }", line: 1 },
		]);
	if (depthOf(root) > maxDepth) throw tooDeep(file);
	return {
		root: { node: root },
		placeOf: (item) => ({
			at: joinPath(pathOf(item)),
			line: lineAt(
				item.node.parent?.type === "property"
					? item.node.parent.offset
					: item.node.offset,
			),
		}),
	};
}

function tooDeep(file: string): BadFileError {
	return new BadFileError(file, [{ path: "", message: "it nests too deeply" }]);
}

/** @returns up to one more than `maxDepth` */
function depthOf(root: Node): number {
	let level: Node[] = [root];
	let depth = 0;
	while (level.length > 0 && depth <= maxDepth) {
		depth += 1;
		level = level.flatMap(({ children = [] }) => children);
	}
	return depth;
}

/** Looks up the line of an offset in a table of where lines start. */
function lineFinder(content: string): (offset: number) => number {
	const starts = [0];
	for (let at = content.indexOf("\n"); at !== -1; ) {
		starts.push(at + 1);
		at = content.indexOf("\n", at + 1);
	}
	return (offset) => {
		let [low, high] = [0, starts.length];
		while (high - low > 1) {
			const middle = (low + high) >> 1;
			if ((starts[middle] ?? 0) <= offset) low = middle;
			else high = middle;
		}
		return low + 1;
	};
}

function pathOf(item: Item): (string | number)[] {
	const path: (string | number)[] = [];
	for (
		let one: Item | undefined = item;
		one?.name !== undefined;
		one = one.within
	)
		path.push(one.name);
	return path.reverse();
}

const none: readonly never[] = [];

/** An object's properties, in the order of the file; for anything else none. */
export function propertiesOf(item: Item): readonly [string, Item][] {
	if (item.node.type !== "object") return none;
	item.properties ??= (item.node.children ?? []).flatMap(
		(property): [string, Item][] => {
			const [key, value] = property.children ?? [];
			const name = String(key?.value);
			return value === undefined
				? []
				: [[name, { node: value, name, within: item }]];
		},
	);
	return item.properties;
}

/** A list's elements; for anything else none. */
export function elementsOf(item: Item): readonly Item[] {
	if (item.node.type !== "array") return none;
	item.elements ??= (item.node.children ?? []).map((node, name) => ({
		node,
		name,
		within: item,
	}));
	return item.elements;
}

/**
 * Every field of a name, whatever its case, as in Go's encoding/json; `null`
 * counts as absent. Where one is there twice both are judged, since the file does
 * not say which one counts.
 */
export function fields(item: Item, name: string): Item[] {
	const found: Item[] = [];
	for (const [key, value] of propertiesOf(item))
		if (
			(key === name || key.toLowerCase() === name.toLowerCase()) &&
			value.node.type !== "null"
		)
			found.push(value);
	return found;
}

/** The last field of a name, as in Go. */
export function field(item: Item, name: string): Item | undefined {
	return fields(item, name).at(-1);
}

/** A string as it is; `undefined` for anything else. */
export function textOf(item: Item | undefined): string | undefined {
	return item?.node.type === "string" ? String(item.node.value) : undefined;
}

/** Takes blanks off both ends, as Go's strings.TrimSpace does. */
export function trimBlanks(text: string): string {
	return /^[\s\u0085]|[\s\u0085]$/.test(text)
		? text.replace(/^[\s\u0085]+|[\s\u0085]+$/g, "")
		: text;
}

/** A value as the file has it, for a message: a string in quotes, anything else by its type. */
export function quoteItem(item: Item | undefined): string {
	if (item === undefined) return "nothing";
	return ["object", "array"].includes(item.node.type)
		? `an ${item.node.type}`
		: quote(item.node.value);
}

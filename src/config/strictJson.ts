import type { ErrorObject } from "ajv";
import {
	findNodeAtLocation,
	getNodeValue,
	type Node,
	type ParseError,
	parseTree,
	printParseErrorCode,
} from "jsonc-parser";
import { durationPattern } from "../duration.ts";
import type { Mistake } from "../errors.ts";
import { nearest } from "../nearest.ts";
import type { SchemaNode } from "./schema.ts";
import { validatorOf } from "./validator.ts";

/** A parsed file, with the line of every path in it. */
export interface StrictJson {
	readonly value: unknown;
	readonly mistakes: readonly Mistake[];
	lineOf(path: readonly (string | number)[]): number | undefined;
}

/**
 * Parses JSON, in which comments and trailing commas may stand and duplicate
 * names may not, and checks it with a schema. Every mistake is reported, each once.
 *
 * @param text the file's content
 * @param schema a JSON Schema whose nodes may carry `x-expected`
 * @param showValues whether a refused value may be quoted; false where it could be a secret
 */
export function parseStrictJson(
	text: string,
	schema: SchemaNode & object,
	showValues: boolean,
): StrictJson {
	try {
		return parse(text, schema, showValues);
	} catch (error) {
		// The parsers call themselves for each level.
		if (!(error instanceof RangeError)) throw error;
		const mistake = { path: "", message: "it nests too deeply" };
		return { value: undefined, mistakes: [mistake], lineOf: () => undefined };
	}
}

function parse(
	text: string,
	schema: SchemaNode & object,
	showValues: boolean,
): StrictJson {
	const content = text.replace(/^\uFEFF/, "");
	const good = parseGood(content, schema);
	if (good !== undefined) return good;
	const syntaxErrors: ParseError[] = [];
	const tree = parseTree(content, syntaxErrors, {
		allowTrailingComma: true,
	});
	const lineAt = (offset: number) =>
		content.slice(0, offset).split("\n").length;
	const lineOf = (path: readonly (string | number)[]) => {
		const node =
			tree === undefined ? undefined : findNodeAtLocation(tree, [...path]);
		return node === undefined
			? undefined
			: lineAt(
					node.parent?.type === "property" ? node.parent.offset : node.offset,
				);
	};
	const [syntaxError] = syntaxErrors;
	if (syntaxError !== undefined || tree === undefined) {
		const message =
			syntaxError === undefined || content.trim() === ""
				? "the file is empty"
				: (syntaxMistakes[printParseErrorCode(syntaxError.error)] ??
					"this is not valid JSON");
		return {
			value: undefined,
			mistakes: [{ path: "", message, line: lineAt(syntaxError?.offset ?? 0) }],
			lineOf,
		};
	}
	const mistakes = findDuplicates(tree, lineAt);
	// The tree's own objects have no prototype.
	const value: unknown = JSON.parse(JSON.stringify(getNodeValue(tree)));
	const validate = validatorOf(schema);
	if (!validate(value)) {
		const seen = new Set<string>();
		for (const error of validate.errors ?? []) {
			const mistake = explain(error, schema, showValues, lineOf);
			if (mistake === undefined || seen.has(mistake.path)) continue;
			seen.add(mistake.path);
			mistakes.push(mistake);
		}
	}
	return { value, mistakes, lineOf };
}

/** By jsonc-parser's own names. */
const syntaxMistakes: Readonly<Record<string, string>> = {
	InvalidSymbol:
		"something is here that is not JSON; texts and names go in double quotes",
	InvalidNumberFormat: "this is not a number",
	PropertyNameExpected: 'a name in double quotes, or a "}", is missing here',
	ValueExpected: "a value is missing here",
	ColonExpected: "a colon is missing here",
	CommaExpected: "a comma is missing before this",
	CloseBraceExpected: 'a closing "}" is missing here',
	CloseBracketExpected: 'a closing "]" is missing here',
	EndOfFileExpected: "something is here after the end",
	UnexpectedEndOfComment: "a comment has no end",
	UnexpectedEndOfString: "a text has no closing '\"'",
	UnexpectedEndOfNumber: "this number is not complete",
	InvalidUnicode: "a \\u is not followed by four hex digits",
	InvalidEscapeCharacter:
		"a backslash is followed by what it cannot stand before; write it twice",
	InvalidCharacter:
		"a text holds a character that must be escaped, such as a tab",
};

/**
 * Parses what is good in every way, in a tenth of the time and memory: a reload
 * of thousands of keys holds up the streams meanwhile. `undefined` for all else,
 * which is looked at anew to say what is wrong and where.
 */
function parseGood(
	content: string,
	schema: SchemaNode & object,
): StrictJson | undefined {
	let value: unknown;
	try {
		value = JSON.parse(content);
	} catch {
		return undefined;
	}
	// Of two members with one name only the last is left.
	if (countMembers(value) !== countColons(content)) return undefined;
	if (!validatorOf(schema)(value)) return undefined;
	let tree: Node | undefined;
	const lineOf = (path: readonly (string | number)[]) => {
		tree ??= parseTree(content);
		const node =
			tree === undefined ? undefined : findNodeAtLocation(tree, [...path]);
		const at = node?.parent?.type === "property" ? node.parent : node;
		return at === undefined
			? undefined
			: content.slice(0, at.offset).split("\n").length;
	};
	return { value, mistakes: [], lineOf };
}

function countMembers(value: unknown): number {
	if (typeof value !== "object" || value === null) return 0;
	const values: unknown[] = Object.values(value);
	let members = Array.isArray(value) ? 0 : values.length;
	for (const one of values) members += countMembers(one);
	return members;
}

/** The colons outside of strings: one for each member, in JSON that is well formed. */
function countColons(content: string): number {
	let colons = 0;
	for (let at = 0; at < content.length; at++) {
		const code = content.charCodeAt(at);
		if (code === 0x3a) colons += 1;
		else if (code === 0x22) {
			// To the quote that ends it; a backslash takes the next character with it.
			for (at += 1; at < content.length; at++) {
				const inside = content.charCodeAt(at);
				if (inside === 0x5c) at += 1;
				else if (inside === 0x22) break;
			}
		}
	}
	return colons;
}

/** Joins a path the way people write it: `keys[0].scopes`. */
export function joinPath(path: readonly (string | number)[]): string {
	return path
		.map((part, index) =>
			typeof part === "number" ? `[${part}]` : index === 0 ? part : `.${part}`,
		)
		.join("");
}

function findDuplicates(
	root: Node,
	lineAt: (offset: number) => number,
): Mistake[] {
	const mistakes: Mistake[] = [];
	const visit = (node: Node, path: readonly (string | number)[]) => {
		if (node.type === "array") {
			for (const [index, item] of (node.children ?? []).entries())
				visit(item, [...path, index]);
		} else if (node.type === "object") {
			const names = new Set<string>();
			for (const property of node.children ?? []) {
				const [key, child] = property.children ?? [];
				const name = String(key?.value);
				const here = [...path, name];
				if (names.has(name))
					mistakes.push({
						path: joinPath(here),
						message: "is here twice; keep one",
						line: lineAt(property.offset),
					});
				names.add(name);
				if (child !== undefined) visit(child, here);
			}
		}
	};
	visit(root, []);
	return mistakes;
}

function explain(
	error: ErrorObject,
	schema: SchemaNode,
	showValues: boolean,
	lineOf: StrictJson["lineOf"],
): Mistake | undefined {
	const path = error.instancePath
		.split("/")
		.slice(1)
		.map((part) => part.replaceAll("~1", "/").replaceAll("~0", "~"))
		.map((part) => (/^\d+$/.test(part) ? Number(part) : part));
	const at = (
		where: readonly (string | number)[],
		message: string,
	): Mistake => {
		const line = lineOf(where);
		return line === undefined
			? { path: joinPath(where), message }
			: { path: joinPath(where), message, line };
	};
	if (error.keyword === "additionalProperties") {
		const name = String(error.params.additionalProperty);
		const siblings = Object.keys(
			(error.parentSchema as SchemaNode | undefined)?.properties ?? {},
		);
		return at(
			[...path, name],
			`unknown setting${suggest(name, siblings, schema)}`,
		);
	}
	if (error.keyword === "required") {
		const name = String(error.params.missingProperty);
		return at([...path, name], "is missing");
	}
	// An alternative that failed is reported by the alternatives' own errors.
	if (
		error.keyword === "if" ||
		error.keyword === "not" ||
		error.keyword === "oneOf" ||
		error.keyword === "anyOf"
	)
		return undefined;
	const node = error.parentSchema as SchemaNode | undefined;
	const expected =
		expectedOfZero(error) ??
		node?.["x-expected"] ??
		(node?.type === "object"
			? "an object { … }"
			: String(error.message ?? "another value"));
	return at(
		path,
		`expected ${expected}${showValues && node?.["x-secret"] !== true ? got(error.data) : ""}`,
	);
}

/** What is expected where the only fault of a duration is that it is none. */
function expectedOfZero({ params, data }: ErrorObject): string | undefined {
	if (params.pattern !== durationPattern) return undefined;
	const [, unit] = /^0+(ms|s|m|h|d)$/.exec(String(data)) ?? [];
	return unit && `a duration of at least "1${unit}"`;
}

/**
 * What a refused value is, as the end of a message that goes into logs. One with
 * an @ or a ? is not shown: of a URL, which may stand in any place by mistake, a
 * password may be before the one or behind the other, whether or not it can be parsed.
 */
export function got(value: unknown): string {
	return /[@?]/.test(JSON.stringify(value) ?? "")
		? ", got something with an @ or a ?, which is not shown since a password may be in it"
		: `, got ${quote(value)}`;
}

/** A short, single-line rendering of a value for an error message; where that is no name, see {@link got}. */
export function quote(value: unknown): string {
	const text = JSON.stringify(value) ?? String(value);
	return text.length > 60 ? `${text.slice(0, 57)}…` : text;
}

/** `; did you mean "concurrent"?`, looking first beside the wrong name and then everywhere. */
function suggest(
	name: string,
	siblings: readonly string[],
	schema: SchemaNode,
): string {
	const elsewhere = allPaths(schema).find(
		(path) => path.at(-1)?.toLowerCase() === name.toLowerCase(),
	);
	const near = nearest(name, siblings) ?? elsewhere?.join(".");
	if (near !== undefined) return `; did you mean "${near}"?`;
	const shown = siblings.filter((sibling) => sibling !== "$schema");
	return shown.length === 0 ? "" : `; known here: ${shown.join(", ")}`;
}

function allPaths(
	node: SchemaNode,
	prefix: readonly string[] = [],
): string[][] {
	return Object.entries(node.properties ?? {}).flatMap(([name, child]) => [
		[...prefix, name],
		...allPaths(child, [...prefix, name]),
	]);
}

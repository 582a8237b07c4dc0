/**
 * A body as Go reads it: the first value counts and what follows is never
 * looked at, keys match in any case, the last of several wins, and `null`
 * leaves a field as it was.
 */
export class Body {
	readonly #members: readonly (readonly [string, unknown])[];

	constructor(members: readonly (readonly [string, unknown])[]) {
		this.#members = members;
	}

	/** All that it holds, as it was written. */
	get members(): readonly (readonly [string, unknown])[] {
		return this.#members;
	}

	/** A field's value; `undefined` if it is not there, or only as `null`. */
	get(name: string): unknown {
		return fieldOf(this.#members, name);
	}

	/** A field's text; "" if there is none. */
	text(name: string): string {
		const value = this.get(name);
		return typeof value === "string" ? value : "";
	}

	/** A field's own members. */
	inner(name: string): Body {
		const value = this.get(name);
		return new Body(
			typeof value === "object" && value !== null ? Object.entries(value) : [],
		);
	}
}

function fieldOf(
	members: readonly (readonly [string, unknown])[],
	name: string,
): unknown {
	// The long s and the Kelvin sign fold to plain letters in Go.
	return members.findLast(
		([key, value]) =>
			value !== null && key.toLowerCase().replaceAll("\u017f", "s") === name,
	)?.[1];
}

/** What Go says of a body that it cannot read. */
export class Unreadable extends Error {}

/** encoding/json/scanner.go:maxNestingDepth */
const maxDepth = 10_000;

/**
 * Reads a body.
 *
 * @param type the Go type that it becomes, as its errors name it
 * @throws Unreadable with Go's own words, as far as a client could look at them
 */
export function readBody(bytes: Buffer, type: string): Body {
	const text = bytes.toString("utf8");
	const start = text.search(/[^ \t\r\n]/);
	if (start === -1) throw new Unreadable("EOF");
	const value = parseFirst(text.slice(start));
	if (value !== null && !(value instanceof Members))
		throw new Unreadable(
			`json: cannot unmarshal ${kindOf(value)} into Go value of type ${type}`,
		);
	const body = new Body(value?.list ?? []);
	for (const [name, wanted] of Object.entries(fieldTypes)) {
		const found = body.get(name);
		if (found !== undefined && kindOf(found) !== kindIn(wanted))
			throw new Unreadable(
				`json: cannot unmarshal ${kindOf(found)} into Go struct field ${type.replace(/^.*\./, "")}.${name} of type ${wanted}`,
			);
	}
	return body;
}

/** The fields that all bodies have alike, where they have them. */
const fieldTypes: Readonly<Record<string, string>> = {
	model: "string",
	stream: "bool",
	options: "map[string]interface {}",
};

function kindIn(type: string): string {
	return type.startsWith("map") ? "object" : type;
}

function kindOf(value: unknown): string {
	if (Array.isArray(value)) return "array";
	return typeof value === "boolean" ? "bool" : typeof value;
}

/** The first value of a text: an object as its members, which may have the same name twice. */
function parseFirst(text: string): unknown {
	const end = valueEnd(text, 0);
	if (end === -1) throw new Unreadable("unexpected EOF");
	if (text[0] === "{") return membersOf(text, end);
	return parse(text.slice(0, end));
}

class Members {
	readonly list: readonly (readonly [string, unknown])[];
	constructor(list: readonly (readonly [string, unknown])[]) {
		this.list = list;
	}
}

function membersOf(text: string, end: number): Members {
	const list: [string, unknown][] = [];
	let at = blankEnd(text, 1);
	while (text[at] !== "}" || list.length > 0) {
		const keyEnd = text[at] === '"' ? valueEnd(text, at) : -1;
		const colonAt = blankEnd(text, keyEnd);
		if (keyEnd === -1 || text[colonAt] !== ":")
			throw new Unreadable(
				`invalid character '${text[at]}' looking for beginning of object key string`,
			);
		const valueAt = blankEnd(text, colonAt + 1);
		const valueStop = valueEnd(text, valueAt);
		list.push([
			String(parse(text.slice(at, keyEnd))),
			parse(text.slice(valueAt, valueStop)),
		]);
		at = blankEnd(text, valueStop);
		if (text[at] === "}" && at === end - 1) break;
		if (text[at] !== ",")
			throw new Unreadable(
				`invalid character '${text[at]}' after object key:value pair`,
			);
		at = blankEnd(text, at + 1);
	}
	return new Members(list);
}

function parse(text: string): unknown {
	try {
		return JSON.parse(text);
	} catch {
		throw new Unreadable(
			`invalid character '${text[0] ?? ""}' looking for beginning of value`,
		);
	}
}

function blankEnd(text: string, from: number): number {
	let at = from;
	while (/[ \t\r\n]/.test(text[at] ?? "")) at += 1;
	return at;
}

/** The place behind the value that begins here; -1 if it is not whole. */
function valueEnd(text: string, from: number): number {
	if (!/["{[]/.test(text[from] ?? "")) {
		const word = /[^\s,\]}{["]*/y;
		word.lastIndex = from;
		word.test(text);
		// Whatever this is, it is not a value; the parser says so.
		return Math.max(word.lastIndex, from + 1);
	}
	let depth = 0;
	for (let at = from; at < text.length; at++) {
		const letter = text[at];
		if (letter === '"') {
			for (at += 1; at < text.length && text[at] !== '"'; at++)
				if (text[at] === "\\") at += 1;
			if (at >= text.length) return -1;
		} else if (letter === "{" || letter === "[") {
			depth += 1;
			if (depth > maxDepth)
				throw new Unreadable(
					`invalid character '${letter}' exceeded max depth`,
				);
		} else if (letter === "}" || letter === "]") depth -= 1;
		if (depth === 0) return at + 1;
	}
	return -1;
}

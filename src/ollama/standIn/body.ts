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
 * @throws Unreadable with Go's own words, as far as somebody could look at them
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
		// Whatever this is, it is no value; the parser says so.
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

/** What Go says of an option or a duration that it cannot take. */
export class WrongValue extends Error {}

const longestNs = 2 ** 63;

/**
 * `keep_alive` in milliseconds (api/types.go:Duration): a number of seconds, or
 * Go's form. Below 0 is for good, and what is longer than Go counts turns to
 * less than nothing.
 *
 * @throws WrongValue in Go's words
 */
export function readKeepAlive(value: unknown): number | undefined {
	if (value === undefined) return undefined;
	if (typeof value === "number") {
		if (value < 0) return Number.POSITIVE_INFINITY;
		const ns = Math.trunc(value * 1e9);
		return ns >= longestNs ? -1 : ns / 1e6;
	}
	if (typeof value !== "string")
		throw new WrongValue(`Unsupported type: '${goTypeOf(value)}'`);
	const ns = parseDuration(value);
	return ns < 0 ? Number.POSITIVE_INFINITY : ns / 1e6;
}

function goTypeOf(value: unknown): string {
	if (typeof value === "boolean") return "bool";
	return Array.isArray(value) ? "[]interface {}" : "map[string]interface {}";
}

const unitsNs: Readonly<Record<string, number>> = {
	ns: 1,
	us: 1e3,
	"\u00b5s": 1e3,
	"\u03bcs": 1e3,
	ms: 1e6,
	s: 1e9,
	m: 60e9,
	h: 3600e9,
};

/** time.ParseDuration, in nanoseconds. */
function parseDuration(text: string): number {
	const [, sign, rest = ""] = /^([+-]?)(.*)$/s.exec(text) ?? [];
	const invalid = () =>
		new WrongValue(`time: invalid duration ${JSON.stringify(text)}`);
	if (rest === "0") return 0;
	if (rest === "") throw invalid();
	let ns = 0;
	for (let left = rest; left !== ""; ) {
		const [all, digits = "", unit = ""] =
			/^(\d+(?:\.\d*)?|\.\d+)([^\d.]*)/.exec(left) ?? [];
		if (all === undefined) throw invalid();
		if (unit === "")
			throw new WrongValue(
				`time: missing unit in duration ${JSON.stringify(text)}`,
			);
		const unitNs = unitsNs[unit];
		if (unitNs === undefined)
			throw new WrongValue(
				`time: unknown unit ${JSON.stringify(unit)} in duration ${JSON.stringify(text)}`,
			);
		ns += Math.trunc(Number(digits) * unitNs);
		if (ns >= longestNs) throw invalid();
		left = left.slice(all.length);
	}
	return sign === "-" ? -ns : ns;
}

const integerOptions = new Set([
	...["num_ctx", "num_batch", "num_gpu", "main_gpu", "num_thread"],
	...["draft_num_predict", "num_keep", "seed", "num_predict", "top_k"],
	"repeat_last_n",
]);
const floatOptions = new Set([
	...["top_p", "min_p", "typical_p", "temperature", "repeat_penalty"],
	...["presence_penalty", "frequency_penalty"],
]);
const launchOptions = new Set([
	...["num_ctx", "num_batch", "num_gpu", "main_gpu", "use_mmap"],
	...["num_thread", "draft_num_predict"],
]);

/** What a request's options come to. */
export interface Options {
	/** Those that a runner is started with, in a form to compare. */
	readonly launch: string;
	readonly contextLength: number;
	readonly tokens: number | undefined;
}

/**
 * A request's `options` (api/types.go:FromMap). What Ollama does not know is ignored.
 *
 * @throws WrongValue for a value of another type
 */
export function readOptions(
	options: Body,
	limits: { readonly defaultContext: number; readonly longestContext: number },
): Options {
	const launch: Record<string, unknown> = {};
	let tokens: number | undefined;
	const refuse = (name: string, type: string) => {
		throw new WrongValue(
			`option ${JSON.stringify(name)} must be of type ${type}`,
		);
	};
	for (const [name, value] of options.members) {
		if (value === null) continue;
		if (integerOptions.has(name) && typeof value !== "number")
			refuse(name, "integer");
		if (floatOptions.has(name) && typeof value !== "number")
			refuse(name, "float32");
		if (name === "use_mmap" && typeof value !== "boolean")
			refuse(name, "boolean");
		if (name === "num_predict") tokens = Math.trunc(Number(value));
		if (name === "stop" && !Array.isArray(value)) refuse(name, "array");
		if (launchOptions.has(name))
			launch[name] = typeof value === "number" ? Math.trunc(value) : value;
	}
	const { num_ctx: wanted = limits.defaultContext } = launch;
	const contextLength = Math.min(
		Math.max(4, Number(wanted)),
		limits.longestContext,
	);
	launch.num_ctx = contextLength;
	return {
		launch: JSON.stringify(Object.entries(launch).sort()),
		contextLength,
		tokens,
	};
}

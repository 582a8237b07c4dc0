/**
 * What Go's encoding/json makes of a body, written the slow and plain way from
 * its documentation: the first value only, fields matched by folded name, the
 * last one wins, strings that are no strings an error. It is the second opinion
 * that the gate's scan is compared with.
 */
export type GoReading =
	| { readonly error: true }
	| { readonly error: false; readonly fields: ReadonlyMap<string, unknown> };

const foldsTo: Record<string, string> = { ſ: "s", K: "k" };
/** A key as Go compares the fields of a struct. */
export const fold = (key: string) =>
	[...key].map((letter) => foldsTo[letter] ?? letter.toLowerCase()).join("");

/** Reads the watched fields as a struct with string, number and map fields would get them. */
export function readLikeGo(
	body: Buffer,
	watched: readonly string[],
): GoReading {
	// Go replaces invalid UTF-8 inside strings and goes on.
	const text = new TextDecoder("utf-8", { ignoreBOM: true }).decode(body);
	const end = firstValueEnd(text);
	if (end === undefined) return { error: true };
	const first = text.slice(0, end);
	const fields = new Map<string, unknown>();
	try {
		JSON.parse(first, function (this: unknown, _key, value) {
			return value;
		});
		if (!first.trimStart().startsWith("{")) return { error: true };
		for (const [key, value] of topLevel(first)) {
			const name = fold(key);
			if (watched.includes(name)) fields.set(name, value);
		}
	} catch {
		return { error: true };
	}
	return { error: false, fields };
}

/** Where the first JSON value ends. */
function firstValueEnd(text: string): number | undefined {
	let depth = 0;
	let inString = false;
	let begun = false;
	for (let at = 0; at < text.length; at++) {
		const letter = text[at] ?? "";
		if (inString) {
			if (letter === "\\") at += 1;
			else if (letter === '"') inString = false;
		} else if (letter === '"') {
			inString = true;
			begun = true;
		} else if (letter === "{" || letter === "[") {
			depth += 1;
			begun = true;
		} else if (letter === "}" || letter === "]") depth -= 1;
		else if (!/\s/.test(letter)) begun = true;
		if (begun && depth === 0 && !inString && (letter === "}" || letter === "]"))
			return at + 1;
	}
	return undefined;
}

/** The members of an object in order, doubles included, which JSON.parse would drop. */
function topLevel(text: string): [string, unknown][] {
	const members: [string, unknown][] = [];
	let at = text.indexOf("{") + 1;
	const skip = () => {
		while (/[\s,:]/.test(text[at] ?? "")) at += 1;
	};
	for (skip(); text[at] !== "}" && at < text.length; skip()) {
		const key = JSON.parse(text.slice(at, endOfToken(text, at))) as string;
		at = endOfToken(text, at);
		skip();
		const end = endOfToken(text, at);
		members.push([key, JSON.parse(text.slice(at, end))]);
		at = end;
	}
	return members;
}

function endOfToken(text: string, start: number): number {
	const first = text[start] ?? "";
	if (first === '"') {
		for (let at = start + 1; at < text.length; at++) {
			if (text[at] === "\\") at += 1;
			else if (text[at] === '"') return at + 1;
		}
	}
	if (first === "{" || first === "[")
		return start + (firstValueEnd(text.slice(start)) ?? text.length);
	let at = start;
	while (at < text.length && !/[\s,:\]}]/.test(text[at] ?? "")) at += 1;
	return at;
}

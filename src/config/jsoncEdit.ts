import { createScanner, type Node } from "jsonc-parser";

/**
 * Changes of JSON with comments that leave the rest of the text as it is. The
 * insertion of jsonc-parser lays the line before it out anew and puts the new
 * member before that line's comment, which would then seem to speak of the wrong
 * one; its removal takes comments along that speak of others.
 */

/** How a text is laid out. */
export interface Layout {
	readonly indent: string;
	readonly eol: string;
}

export function layoutOf(text: string): Layout {
	return {
		indent: /^([\t ]+)"/m.exec(text)?.[1] ?? "  ",
		eol: text.includes("\r\n") ? "\r\n" : "\n",
	};
}

/**
 * The text with a member more at the end of an object or a list, behind what is
 * said of the last one on its line.
 *
 * @param name of an object's member
 */
export function withMember(
	text: string,
	parent: Node,
	name: string | number | undefined,
	value: unknown,
	{ indent, eol } = layoutOf(text),
): string {
	const key = typeof name === "string" ? `${JSON.stringify(name)}: ` : "";
	const member = (outer: string) =>
		`${eol}${outer}${key}${laidOut(value, outer, { indent, eol })}`;
	const close = parent.offset + parent.length - 1;
	const last = parent.children?.at(-1);
	if (last === undefined) {
		const inside = text.slice(parent.offset + 1, close).trimEnd();
		const outer = indentAt(text, parent.offset);
		return replace(
			text,
			parent.offset + 1,
			close,
			`${inside}${member(outer + indent)}${eol}${outer}`,
		);
	}
	const lastEnd = last.offset + last.length;
	const { end, hasComma } = endOfMember(text, lastEnd, close);
	const isOneLine =
		!text.slice(parent.offset, last.offset).includes("\n") &&
		!text.slice(lastEnd, end).includes("//");
	const added = isOneLine
		? ` ${key}${JSON.stringify(value)}`
		: member(indentAt(text, last.offset));
	return hasComma
		? replace(text, end, end, `${added},`)
		: replace(text, lastEnd, end, `,${text.slice(lastEnd, end)}${added}`);
}

/** The text with another value in a value's place; one that is in one line stays so. */
export function withValue(text: string, node: Node, value: unknown): string {
	const end = node.offset + node.length;
	const isOneLine = !text.slice(node.offset, end).includes("\n");
	return replace(
		text,
		node.offset,
		end,
		isOneLine
			? JSON.stringify(value)
			: laidOut(value, indentAt(text, node.offset), layoutOf(text)),
	);
}

/**
 * The text without an item of a list. What is said of it on its own line goes
 * with it; comments on other lines, and those of other items, stay.
 */
export function withoutItem(text: string, list: Node, index: number): string {
	const items = list.children ?? [];
	const item = items[index];
	if (item === undefined) return text;
	const previous = items[index - 1];
	const next = items[index + 1];
	const close = list.offset + list.length - 1;
	const { hadComma, left } = withoutOwn(
		text,
		item.offset + item.length,
		next?.offset ?? close,
	);
	let before = text.slice(0, item.offset);
	if (next !== undefined)
		return before + left.trimStart() + text.slice(next.offset);
	if (previous !== undefined && !hadComma) {
		const end = previous.offset + previous.length;
		before = before.slice(0, end) + withoutComma(text.slice(end, item.offset));
	}
	// A line's comment needs its end.
	before = /^[\t ]*\r?\n/.test(left)
		? before.trimEnd()
		: before.replace(/[\t ]+$/, "");
	const inside = before.slice(list.offset + 1) + left;
	return inside.trim() === ""
		? `${text.slice(0, list.offset)}[]${text.slice(close + 1)}`
		: before + left + text.slice(close);
}

function replace(
	text: string,
	start: number,
	end: number,
	content: string,
): string {
	return text.slice(0, start) + content + text.slice(end);
}

function laidOut(
	value: unknown,
	outer: string,
	{ indent, eol }: Layout,
): string {
	return JSON.stringify(value, undefined, indent).replaceAll("\n", eol + outer);
}

/** What the line of an offset begins with. */
function indentAt(text: string, offset: number): string {
	const line = text.slice(text.lastIndexOf("\n", offset - 1) + 1);
	return /^[\t ]*/.exec(line)?.[0] ?? "";
}

/** The tokens of a text from a place to another: commas, comments, spaces and line ends. */
function* tokens(text: string, start: number, end: number) {
	const scanner = createScanner(text);
	scanner.setPosition(start);
	for (;;) {
		scanner.scan();
		const from = scanner.getTokenOffset();
		if (from >= end) return;
		const to = from + scanner.getTokenLength();
		yield { token: text.slice(from, to), to };
	}
}

const isLineEnd = (token: string) => /^[\r\n]/.test(token);

/** Where a container's last member ends, with its comma and the comments behind it on its line. */
function endOfMember(text: string, start: number, close: number) {
	let end = start;
	let hasComma = false;
	let sameLine = true;
	for (const { token, to } of tokens(text, start, close)) {
		if (token === ",") {
			hasComma = true;
			sameLine = true;
			end = to;
		} else if (isLineEnd(token)) sameLine = false;
		else if (token.trim() !== "" && sameLine) end = to;
	}
	return { end, hasComma };
}

/** What is left between an item that goes and what follows it, without its comma and the comments on its line. */
function withoutOwn(text: string, start: number, end: number) {
	let left = "";
	let hadComma = false;
	let sameLine = true;
	// Behind the comma on the line on which the next item stands: said of that one.
	let ofNext = "";
	for (const { token } of tokens(text, start, end)) {
		if (token === ",") {
			hadComma = true;
			sameLine = true;
		} else if (isLineEnd(token)) {
			sameLine = false;
			ofNext = "";
			left += token;
		} else if (!sameLine) left += token;
		else if (hadComma) ofNext += token;
	}
	return { hadComma, left: sameLine ? left + ofNext : left };
}

function withoutComma(text: string): string {
	return [...tokens(text, 0, text.length)]
		.map(({ token }) => (token === "," ? "" : token))
		.join("");
}

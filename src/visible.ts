/**
 * Text of unknown origin, such that nothing in it is hidden and nothing steers:
 * control characters, lone surrogates, marks that turn the direction of
 * writing and characters without a width stand as `<U+202E>`, as `less` shows
 * them. Line feeds and tabs stay.
 */
export function visible(text: string): string {
	return text.replace(
		/[[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]--[\n\t]]/gv,
		(character) =>
			`<U+${(character.codePointAt(0) ?? 0).toString(16).toUpperCase().padStart(4, "0")}>`,
	);
}

/** The same on one line, with a mark in place of each line break. */
export function visibleLine(text: string, mark = " "): string {
	return visible(text.replace(/[\n\t]+/g, mark));
}

const maxExcerptLength = 200;

/** What a server says, fit for a terminal and a report: one short line, and never the key. */
export function excerpt(text: string, key?: string): string {
	// First, or a key with something invisible in it would pass.
	const plain = text.replace(/(?!\s)[\p{Cc}\p{Cf}]/gu, "");
	const line = (key === undefined ? plain : plain.replaceAll(key, "KEY"))
		.replace(/\s+/g, " ")
		.trim();
	return line.length > maxExcerptLength
		? `${line.slice(0, maxExcerptLength - 1)}…`
		: line;
}

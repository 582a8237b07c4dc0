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

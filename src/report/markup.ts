import { visible } from "../visible.ts";

/** Text that is HTML already. Only {@link html} makes it. */
export class Markup {
	readonly text: string;
	constructor(text: string) {
		this.text = text;
	}
}

type Part = string | number | Markup | undefined | readonly Part[];

/**
 * HTML with holes. What is put into one is text, shown as it is and never
 * read as markup, unless it is markup of this function; a list is put in item
 * by item, `undefined` is nothing. Attributes have to be quoted.
 */
export function html(
	strings: TemplateStringsArray,
	...parts: readonly Part[]
): Markup {
	return new Markup(
		strings
			.map((string, at) => (at === 0 ? "" : render(parts[at - 1])) + string)
			.join(""),
	);
}

function render(part: Part): string {
	if (part === undefined) return "";
	if (part instanceof Markup) return part.text;
	if (typeof part === "object") return part.map(render).join("");
	return visible(String(part)).replace(
		/[&<>"'`]/g,
		(character) => `&#${character.charCodeAt(0)};`,
	);
}

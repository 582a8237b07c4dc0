import { html, type Markup } from "./markup.ts";
import { type Tone, toneNames } from "./tone.ts";

const circle = "M8 1.5a6.5 6.5 0 1 0 0 13a6.5 6.5 0 1 0 0-13z";
const shapes: Readonly<Record<Tone, string>> = {
	critical:
		"M5.3 1.5h5.4l3.8 3.8v5.4l-3.8 3.8H5.3l-3.8-3.8V5.3zM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
	high: "M8 1.7l6.8 12H1.2zM8 6.2v3.5M8 11.7v.1",
	warn: "M8 1l7 7-7 7-7-7zM8 4.8v3.7M8 11v.1",
	info: `${circle}M8 7.5v3.7M8 4.8v.1`,
	unknown: `${circle}M6.2 6.4a1.8 1.8 0 1 1 2.6 1.6c-.5.3-.8.6-.8 1.2M8 11.4v.1`,
	ok: `${circle}M5 8.3l2.1 2.1 4-4.5`,
	absent: `${circle}M5.2 8h5.6`,
	unchecked: circle,
};

/** The shapes that {@link icon} shows; once on a page. */
export function iconShapes(): Markup {
	const symbols = Object.entries(shapes).map(
		([tone, path]) =>
			html`<symbol id="icon-${tone}" viewBox="0 0 16 16"><path d="${path}"/></symbol>`,
	);
	return html`<svg class="shapes" width="0" height="0" aria-hidden="true">${symbols}</svg>`;
}

/** A mark for the eye; the word has to stand beside it. */
export function icon(tone: Tone): Markup {
	return html`<svg class="icon" aria-hidden="true"><use href="#icon-${tone}"/></svg>`;
}

/** The mark and its word. */
export function badge(tone: Tone): Markup {
	return html`<span class="badge ${tone}">${icon(tone)}${toneNames[tone]}</span>`;
}

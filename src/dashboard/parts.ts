import { html, Markup } from "../report/markup.ts";

/** The longest name that is shown, in UTF-16 code units. */
const maxNameLength = 80;

/** A name that comes from a client, a file or Ollama: as text, on one line, not longer than fits. */
export function nameOf(text: string): Markup {
	const shown =
		text.length <= maxNameLength
			? text
			: `${text.slice(0, maxNameLength - 1)}…`;
	return html`<bdi>${shown.replace(/[\n\t]/g, " ")}</bdi>`;
}

/**
 * A part of a whole, as a bar and its figure. It may be more than the whole.
 *
 * @param round a limit is not reached before it is; of shares the nearest will do
 */
export function bar(part: number, round: (percent: number) => number): Markup {
	const width = Math.round(Math.min(1, Math.max(0, part)) * 1000) / 10;
	return html`<span class="part"><svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="${width}" height="10"/></svg> <span>${round(part * 100)} %</span></span>`;
}

/** A cell: words are left, numbers right. */
export type Cell = string | number | Markup;

/** A row of a table, with what tells it from others when there are new ones. */
export interface Row {
	readonly id?: string;
	readonly cells: readonly Cell[];
}

/** A table that can be scrolled with the keyboard where it is too wide. The first cell of a row names it. */
export function table(
	label: string,
	head: readonly string[],
	rows: readonly Row[],
): Markup {
	const isNumber = head.map((_, at) =>
		rows.every(({ cells }) => {
			const cell = cells[at] ?? "";
			return !(cell instanceof Markup) && /^[\d.–]*$/.test(String(cell));
		}),
	);
	const kind = (at: number) => (isNumber[at] ? "number" : "words");
	return html`<div class="scroll" role="group" aria-label="${label}" tabindex="0"><table>
<thead><tr>${head.map((name, at) => html`<th scope="col" class="${kind(at)}">${name}</th>`)}</tr></thead>
<tbody>${rows.map(
		({ id, cells }) =>
			html`<tr${id === undefined ? undefined : html` id="${id}"`}>${cells.map(
				(cell, at) =>
					at === 0
						? html`<th scope="row" class="${kind(at)}">${cell}</th>`
						: html`<td class="${kind(at)}">${cell}</td>`,
			)}</tr>
`,
	)}</tbody></table></div>`;
}

/** "3.4 s", "250 ms" */
export function formatLatency(ms: number): string {
	return ms < 1_000 ? `${Math.round(ms)} ms` : `${(ms / 1000).toFixed(1)} s`;
}

/** "2030-01-31 10:20 UTC" */
export function formatMoment(iso: string): Markup {
	const time = new Date(iso).toISOString();
	return html`<time datetime="${time}">${time.slice(0, 10)} ${time.slice(11, 16)} UTC</time>`;
}

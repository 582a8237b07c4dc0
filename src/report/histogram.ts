import { html, type Markup } from "./markup.ts";

/** How many gaps between chunks took from `fromMs` up to, not including, `toMs`; that may be `Infinity`. */
export interface HistogramBin {
	readonly fromMs: number;
	readonly toMs: number;
	readonly count: number;
}

/** Bars with their figures, a row each, so that a phone shows them as well as a desktop. */
export function drawHistogram(bins: readonly HistogramBin[]): Markup {
	const most = Math.max(1, ...bins.map(({ count }) => count));
	const rows = bins.map(({ fromMs, toMs, count }) => {
		const width = Number(((count / most) * 100).toFixed(2));
		return html`<tr><th scope="row">${describeRange(fromMs, toMs)}</th><td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="${width}" height="10"/></svg></td><td class="count">${count}</td></tr>
`;
	});
	return html`<section aria-labelledby="gaps">
<h2 id="gaps">Gaps between chunks</h2>
<p>How long a streamed reply paused between one piece and the next.</p>
<table class="histogram">
<thead><tr><th scope="col">Gap</th><th scope="col"><span class="unseen">Share</span></th><th scope="col">Gaps</th></tr></thead>
<tbody>
${rows}</tbody>
</table>
</section>`;
}

function describeRange(fromMs: number, toMs: number): string {
	return Number.isFinite(toMs)
		? `${fromMs}–${toMs} ms`
		: `${fromMs} ms and more`;
}

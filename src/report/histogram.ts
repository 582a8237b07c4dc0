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
		// The rarest are to be seen, too: they are the pauses that people notice.
		const width =
			count === 0 ? 0 : Math.max(1, Math.round((count / most) * 1000) / 10);
		return html`<tr><th scope="row">${describeRange(fromMs, toMs)}</th><td class="bar"><svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true"><rect width="${width}" height="10"/></svg></td><td class="count">${count}</td></tr>
`;
	});
	return html`<section aria-labelledby="gaps">
<h2 id="gaps">Gaps between chunks</h2>
<p>How long a streamed reply paused between one piece and the next.</p>
<table class="histogram">
<thead><tr><th scope="col">Gap</th><th scope="col"><span class="unseen">Share</span></th><th scope="col">Count</th></tr></thead>
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

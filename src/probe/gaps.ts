import type { HistogramBin } from "../report/histogram.ts";

const boundsMs = [0, 1, 3, 10, 30, 100, 300, 1_000, Number.POSITIVE_INFINITY];

/** How many gaps were how long, from the shortest there is to the longest. */
export function countGaps(gapsMs: readonly number[]): HistogramBin[] {
	const bins = boundsMs.slice(1).map((toMs, i) => {
		const fromMs = boundsMs[i] ?? 0;
		const count = gapsMs.filter((gap) => gap >= fromMs && gap < toMs).length;
		return { fromMs, toMs, count };
	});
	const first = bins.findIndex(({ count }) => count > 0);
	const last = bins.findLastIndex(({ count }) => count > 0);
	return first === -1 ? [] : bins.slice(first, last + 1);
}

/** The same as bars of characters, a line each. */
export function drawGaps(gapsMs: readonly number[]): string[] {
	const bins = countGaps(gapsMs);
	const most = Math.max(1, ...bins.map(({ count }) => count));
	return bins.map((bin) => {
		const bar = "█".repeat(Math.ceil((bin.count / most) * 40));
		return `${formatRange(bin).padStart(16)} ${String(bin.count).padStart(4)} ${bar}`.trimEnd();
	});
}

export function formatRange({ fromMs, toMs }: HistogramBin): string {
	return Number.isFinite(toMs)
		? `${fromMs}–${toMs} ms`
		: `${fromMs} ms and more`;
}

export function formatMs(ms: number): string {
	if (ms < 10 && !Number.isInteger(ms)) return `${ms.toFixed(1)} ms`;
	if (ms < 1_000) return `${Math.round(ms)} ms`;
	return `${Number((ms / 1_000).toFixed(1))} s`;
}

const millisecondsIn = {
	ms: 1,
	s: 1_000,
	m: 60_000,
	h: 3_600_000,
	d: 86_400_000,
} as const;
const bytesIn = {
	B: 1,
	KiB: 2 ** 10,
	MiB: 2 ** 20,
	GiB: 2 ** 30,
	TiB: 2 ** 40,
} as const;

/** What the schema checks a duration with: a whole number and a unit, never zero. */
export const durationPattern = "^[1-9][0-9]{0,8}(ms|s|m|h|d)$";
/** A timer holds 2^31 ms; one that is set for longer goes off at once (Node, timers). */
export const maxTimerDays = 24;
/** What the schema checks a size with. */
export const sizePattern = "^[1-9][0-9]{0,8}(B|KiB|MiB|GiB|TiB)$";

function measure(
	text: string,
	pattern: string,
	units: Record<string, number>,
): number | undefined {
	if (!new RegExp(pattern).test(text)) return undefined;
	const amount = Number.parseInt(text, 10);
	const factor = units[text.slice(String(amount).length)];
	return factor === undefined ? undefined : amount * factor;
}

/** Reads `"15m"` as milliseconds; `undefined` if it is not a duration. */
export function parseDuration(text: string): number | undefined {
	return measure(text, durationPattern, millisecondsIn);
}

/** Reads `"64MiB"` as bytes; `undefined` if it is not a size. */
export function parseSize(text: string): number | undefined {
	return measure(text, sizePattern, bytesIn);
}

/** Writes milliseconds in the largest unit that leaves a whole number: `900000` is `"15m"`. */
export function formatDuration(durationMs: number): string {
	for (const unit of ["d", "h", "m", "s"] as const) {
		if (
			durationMs >= millisecondsIn[unit] &&
			durationMs % millisecondsIn[unit] === 0
		)
			return `${durationMs / millisecondsIn[unit]}${unit}`;
	}
	return `${durationMs}ms`;
}

/** Writes bytes in the largest unit that leaves a whole number: `67108864` is `"64MiB"`. */
export function formatSize(sizeBytes: number): string {
	for (const unit of ["TiB", "GiB", "MiB", "KiB"] as const) {
		if (sizeBytes >= bytesIn[unit] && sizeBytes % bytesIn[unit] === 0)
			return `${sizeBytes / bytesIn[unit]}${unit}`;
	}
	return `${sizeBytes}B`;
}

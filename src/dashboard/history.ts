import type { Snapshot } from "./snapshot.ts";

/** Seconds since the epoch, tokens a second, at work, waiting, first token's median and 95th percentile in seconds; null where it is not known. */
export type Point = readonly [number, ...(number | null)[]];

/** Ten minutes, at a look a second. */
const maxPoints = 600;
/** Two looks that are further apart are not joined by a line. A clock that is put back by less is waited for. */
const maxGapSeconds = 5;
const unknown = [null, null, null, null, null] as const;

/** What the curves are drawn from: the last ten minutes, as far as anybody watched. */
export class History {
	#points: Point[] = [];

	get points(): readonly Point[] {
		return this.#points;
	}

	/**
	 * @returns what is new: nothing for a snapshot that it has already. Where the clock
	 *   was put back, `isAnew`: what there was before is yet to come, and is gone
	 */
	add(snapshot: Snapshot): {
		readonly points: readonly Point[];
		readonly isAnew: boolean;
	} {
		const at = round(snapshot.atMs / 1000);
		const isAnew = at < (this.#points.at(-1)?.[0] ?? at) - maxGapSeconds;
		if (isAnew) this.#points = [];
		const last = this.#points.at(-1)?.[0];
		if (last !== undefined && at <= last) return { points: [], isAnew };
		const isGap = last !== undefined && at - last > maxGapSeconds;
		const points: Point[] = [
			...(isGap ? [[last + 1, ...unknown] as Point] : []),
			[at, ...valuesOf(snapshot)],
		];
		this.#points = [...this.#points, ...points].slice(-maxPoints);
		return { points, isAnew };
	}
}

function valuesOf({ gate, tokensPerSecond }: Snapshot): (number | null)[] {
	if (gate.kind !== "live") return [...unknown];
	const { top, firstTokens } = gate.live;
	const { medianMs, p95Ms } = firstTokens.lastMinute;
	const seconds = (ms: number | null) => (ms === null ? null : ms / 1000);
	return [
		tokensPerSecond === undefined ? null : round(tokensPerSecond),
		top.atWork,
		top.waiting,
		seconds(medianMs),
		seconds(p95Ms),
	];
}

function round(value: number): number {
	return Math.round(value * 10) / 10;
}

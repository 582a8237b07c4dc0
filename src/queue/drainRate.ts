/** Over how long the rate is measured. */
const windowMs = 60_000;
/** What clients heed of `Retry-After`: longer ones are taken for a mistake. */
const longestS = 60;
/** What is said before anything has ended. */
const firstGuessS = 5;
const maxEnds = 1024;

/** How fast requests come to their ends, to say when it is worth asking again. */
export class DrainRate {
	/** When the last ones ended, the oldest first. */
	readonly #ends: number[] = [];

	finished(nowMs: number): void {
		this.#ends.push(nowMs);
		if (this.#ends.length > maxEnds) this.#ends.splice(0, maxEnds / 2);
	}

	/** How long it takes until so many have ended, in whole seconds from 1 to 60. */
	secondsFor(count: number, nowMs: number): number {
		const from = this.#ends.findIndex((endMs) => endMs > nowMs - windowMs);
		const recent = from === -1 ? 0 : this.#ends.length - from;
		if (recent < 2) return firstGuessS;
		const overMs = Math.max(1, nowMs - (this.#ends[from] ?? nowMs));
		const seconds = Math.ceil((count * overMs) / recent / 1000);
		return Math.min(longestS, Math.max(1, seconds));
	}
}

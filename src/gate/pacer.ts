interface Pace {
	/** What each may do at once. */
	readonly burst: number;
	/** What it may do a second from then on. */
	readonly perSecond: number;
	/** The longest that anything of it is held back. */
	readonly longestWaitMs: number;
}

/** Holds back what comes too fast, each by itself, and lets it go at an even pace. */
export class Pacer {
	readonly #pace: () => Pace;
	/** When the next of each would leave if each took its full share of a second. */
	readonly #nextAtMs = new Map<string, number>();

	/** @param pace asked anew each time */
	constructor(pace: () => Pace) {
		this.#pace = pace;
	}

	/**
	 * How long the next waits; 0 for at once, `undefined` if so many wait already
	 * that it is not to be done at all.
	 *
	 * @param nowMs any clock that only moves forward
	 */
	take(who: string, nowMs: number): number | undefined {
		const { burst, perSecond, longestWaitMs } = this.#pace();
		const shareMs = 1000 / perSecond;
		const earliestMs = nowMs - burst * shareMs;
		const nextAtMs =
			Math.max(this.#nextAtMs.get(who) ?? earliestMs, earliestMs) + shareMs;
		if (nextAtMs > nowMs + longestWaitMs) return undefined;
		this.#nextAtMs.set(who, nextAtMs);
		return Math.max(0, nextAtMs - nowMs);
	}

	/** Has nothing more of a client done until the longest wait is over, and little then. */
	exhaust(who: string, nowMs: number): void {
		const { longestWaitMs } = this.#pace();
		this.#nextAtMs.set(who, nowMs + 2 * longestWaitMs);
	}

	/** Forgets those that have been quiet for long enough to have their burst back. */
	sweep(nowMs: number): void {
		const { burst, perSecond } = this.#pace();
		const earliestMs = nowMs - (burst * 1000) / perSecond;
		for (const [who, nextAtMs] of this.#nextAtMs)
			if (nextAtMs <= earliestMs) this.#nextAtMs.delete(who);
	}
}

/** Refusals that an address gets at once before it has to wait for the next. */
const burst = 1_000;
/** Refusals a second that an address gets from then on. */
const perSecond = 200;
/** The longest that a refusal is held back. */
const longestWaitMs = 2_000;

/**
 * Holds back the refusals of an address that collects very many, so that a
 * flood of bad requests costs the running streams no more than a small share of
 * the core: who has a request waiting sends none meanwhile. Nobody with a good
 * key ever waits.
 */
export class RefusalPace {
	/** When the next refusal of an address would leave if each took its full share of a second. */
	readonly #nextAtMs = new Map<string, number>();

	/**
	 * How long the next refusal of an address waits; 0 for at once.
	 *
	 * @param nowMs any clock that only moves forward
	 */
	take(address: string, nowMs: number): number {
		const shareMs = 1000 / perSecond;
		const earliestMs = nowMs - burst * shareMs;
		const nextAtMs = Math.min(
			Math.max(this.#nextAtMs.get(address) ?? earliestMs, earliestMs) + shareMs,
			nowMs + longestWaitMs,
		);
		this.#nextAtMs.set(address, nextAtMs);
		return Math.max(0, nextAtMs - nowMs);
	}

	/** Forgets addresses that have been quiet for long enough to have their burst back. */
	sweep(nowMs: number): void {
		const earliestMs = nowMs - (burst * 1000) / perSecond;
		for (const [address, nextAtMs] of this.#nextAtMs)
			if (nextAtMs <= earliestMs) this.#nextAtMs.delete(address);
	}
}

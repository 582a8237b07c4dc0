/** Numbers that are the same for the same seed (mulberry32). */
export class Random {
	#state: number;

	constructor(seed: number) {
		this.#state = seed >>> 0;
	}

	/** From 0 up to, but not, `limit`. */
	below(limit: number): number {
		this.#state = (this.#state + 0x6d2b79f5) >>> 0;
		let mixed = this.#state;
		mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
	}

	pick<T>(from: readonly T[]): T {
		// Nobody asks for one of nothing.
		return from[this.below(from.length)] as T;
	}
}

/** The seed of this run: FUZZ_SEED, or else the given one, by default another each time. */
export function chooseSeed(otherwise = Date.now() % 2 ** 31): number {
	return Number(process.env.FUZZ_SEED ?? otherwise);
}

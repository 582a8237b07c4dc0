/**
 * How many requests one model serves at once. Where nobody has said, it is
 * learnt: one request more than is known to fit is sent, and if its first byte
 * comes while all that ran before it still run, then it fits.
 */

/** So many tries that failed say that Ollama has no more slots. */
const maxFailures = 3;
/** Of requests that are answered whole, or beside one that ends at once, a late first byte says little. */
const maxUnclear = 40;
/** How fast the longest wait for a first byte is forgotten: by so much with each that comes. */
const forget = 0.9;
/** How long after a try that failed the next may come; twice as long after each. */
const firstRestMs = 5_000;

/** The outcome of a try. */
export type Tried = "fits" | "waited" | "unclear";

export class Slots {
	readonly #isFixed: boolean;
	#known: number;
	#failures = 0;
	#unclear = 0;
	#isTrying = false;
	#restUntilMs = Number.NEGATIVE_INFINITY;
	/** How long a first byte takes that waits for nobody. */
	#firstByteMs = Number.POSITIVE_INFINITY;

	/** @param parallel as it was set, or `"auto"` */
	constructor(parallel: number | "auto") {
		this.#isFixed = parallel !== "auto";
		this.#known = parallel === "auto" ? 1 : parallel;
	}

	/** How many are known to fit. */
	get known(): number {
		return this.#known;
	}

	/** Whether one more than is known has been sent, and it is not known yet whether it fits. */
	get isTrying(): boolean {
		return this.#isTrying;
	}

	/** Whether one more than is known may be sent now. */
	mayTry(nowMs: number): boolean {
		return (
			!this.#isFixed &&
			!this.#isTrying &&
			nowMs >= this.#restUntilMs &&
			this.#failures < maxFailures &&
			this.#unclear < maxUnclear
		);
	}

	/** The first byte of a stream that was no try has come. */
	answered(afterMs: number): void {
		const beforeMs =
			this.#firstByteMs === Number.POSITIVE_INFINITY ? 0 : this.#firstByteMs;
		this.#firstByteMs = Math.max(afterMs, beforeMs * forget);
	}

	/** Whether a try that runs for so long would have had its first byte, had it a slot. */
	isLate(afterMs: number): boolean {
		return afterMs > this.#firstByteMs;
	}

	begin(): void {
		this.#isTrying = true;
	}

	end(tried: Tried, nowMs: number): void {
		this.#isTrying = false;
		if (tried === "fits") {
			this.#known += 1;
			this.#failures = 0;
			this.#unclear = 0;
			return;
		}
		if (tried === "waited") this.#failures += 1;
		else this.#unclear += 1;
		this.#restUntilMs =
			nowMs + firstRestMs * 2 ** Math.max(0, this.#failures - 1);
	}
}

/**
 * How many requests one model serves at once. Where nobody has said, it is
 * learnt: one request more than is known to fit is sent, and if its first byte
 * comes while all that ran before it still run, then it fits. Ollama may be
 * started anew with other slots while nobody looks, so nothing is final.
 */

/** So many tries may say nothing before the next come further and further apart. */
const maxUnclear = 40;
/** So many requests in a row that waited within the known slots say that these are too many. */
const maxLacked = 5;
/** So many times as late as usual is far too late. */
const leastLate = 4;
/** How fast the longest wait for a first byte is forgotten: by so much with each that comes. */
const forget = 0.9;
/** How long after a try that failed the next may come; twice as long after each. */
const firstRestMs = 5_000;
const longestRestMs = 3_600_000;

/** The outcome of a try. */
export type Tried = "fits" | "waited" | "unclear";

export class Slots {
	readonly #isFixed: boolean;
	#known: number;
	#failures = 0;
	#unclear = 0;
	#lacked = 0;
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
		return !this.#isFixed && !this.#isTrying && nowMs >= this.#restUntilMs;
	}

	/** The first byte of a stream that was no try has come, so long after nothing kept it from a slot. */
	answered(afterMs: number): void {
		const beforeMs =
			this.#firstByteMs === Number.POSITIVE_INFINITY ? 0 : this.#firstByteMs;
		this.#firstByteMs = Math.max(afterMs, beforeMs * forget);
	}

	/** Whether a try that runs for so long would have had its first byte, had it a slot. */
	isLate(afterMs: number): boolean {
		return afterMs > this.#firstByteMs;
	}

	/** Whether prompts that have become longer do not explain it: ends of others would come less often than one in a usual first byte. */
	isFarTooLate(afterMs: number): boolean {
		return afterMs > this.#firstByteMs * Math.max(leastLate, this.#known);
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
			this.#lacked = 0;
			return;
		}
		if (tried === "waited") this.#failures += 1;
		else this.#unclear += 1;
		const doublings = Math.max(
			...[0, this.#failures - 1, this.#unclear - maxUnclear],
		);
		this.#restUntilMs =
			nowMs + Math.min(longestRestMs, firstRestMs * 2 ** doublings);
	}

	/** A request within the known slots has waited in Ollama. */
	lacked(nowMs: number): void {
		if (this.#isFixed || this.#isTrying || this.#known === 1) return;
		this.#lacked += 1;
		if (this.#lacked < maxLacked) return;
		this.#known -= 1;
		this.#lacked = 0;
		this.#failures = 0;
		this.#unclear = 0;
		this.#restUntilMs = nowMs + firstRestMs;
	}

	/** A request that took the last of the known slots did not wait, as far as is known. */
	sufficed(): void {
		this.#lacked = 0;
	}
}

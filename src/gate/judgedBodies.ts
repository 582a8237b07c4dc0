import { wholeBodyBytes } from "./wholeBody.ts";

/** What a body's memory is counted in. */
const blockBytes = 64 * 1024;
/** How long the event loop is left to others after a piece, as a multiple of what it took. */
const restFor = 2;
/** A piece's memory is collected too, so the pace is bounded: some 20 MiB a second for all. */
const leastRestMs = 3;

/**
 * The memory and the time for bodies that a rule must see whole before Ollama
 * does. Small ones need neither leave nor turn.
 */
export class JudgedBodies {
	#heldBytes = 0;
	/** When the loop has had its part of the time; by `performance.now()`. */
	#restUntilMs = 0;
	readonly #ofKey = new Map<string, number>();
	readonly #waiting: (() => void)[] = [];

	/**
	 * Takes room for a body that has grown.
	 *
	 * @param sizeBytes of the body so far
	 * @param heldBytes what has been taken for it already
	 * @param roomBytes for all bodies together; one key's may have half of it
	 * @returns what is held for it now, or `undefined` if there is no room
	 */
	take(
		key: string,
		sizeBytes: number,
		heldBytes: number,
		roomBytes: number,
	): number | undefined {
		if (sizeBytes <= Math.max(wholeBodyBytes, heldBytes)) return heldBytes;
		const wanted = Math.ceil(sizeBytes / blockBytes) * blockBytes;
		const more = wanted - heldBytes;
		const ofKey = this.#ofKey.get(key) ?? 0;
		if (
			this.#heldBytes + more > roomBytes ||
			// A body of exactly the limit fills the half; its last block may stand out.
			ofKey + more > roomBytes / 2 + blockBytes
		)
			return undefined;
		this.#heldBytes += more;
		this.#ofKey.set(key, ofKey + more);
		return wanted;
	}

	/** Gives back what was taken. */
	give(key: string, heldBytes: number): void {
		if (heldBytes === 0) return;
		this.#heldBytes -= heldBytes;
		const left = (this.#ofKey.get(key) ?? 0) - heldBytes;
		if (left > 0) this.#ofKey.set(key, left);
		else this.#ofKey.delete(key);
	}

	/**
	 * Judges a piece of a large body, and calls back when the next piece of any may
	 * be: one of all of them at a time, and together they have a third of the time.
	 */
	inTurn(judge: () => void, go: () => void): void {
		const startMs = performance.now();
		judge();
		const endMs = performance.now();
		this.#restUntilMs =
			Math.max(this.#restUntilMs, endMs) +
			Math.max(leastRestMs, restFor * (endMs - startMs));
		if (this.#waiting.push(go) === 1) setImmediate(this.#turn);
	}

	readonly #turn = (): void => {
		if (performance.now() < this.#restUntilMs) {
			setTimeout(this.#turn, 1);
			return;
		}
		this.#waiting.shift()?.();
		if (this.#waiting.length > 0) setImmediate(this.#turn);
	};
}

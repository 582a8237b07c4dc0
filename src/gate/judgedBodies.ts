import { wholeBodyBytes } from "./wholeBody.ts";

/** What a body's memory is counted in. */
const blockBytes = 64 * 1024;

/**
 * The memory and the time for bodies that a rule must see whole before Ollama
 * does. Small ones need neither leave nor turn.
 */
export class JudgedBodies {
	#heldBytes = 0;
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
	 * Calls back when the next piece of a large body may be judged: one of all of
	 * them at a time, and between two the event loop has its turn.
	 */
	nextTurn(go: () => void): void {
		if (this.#waiting.push(go) === 1) setImmediate(this.#turn);
	}

	readonly #turn = (): void => {
		this.#waiting.shift()?.();
		if (this.#waiting.length > 0) setImmediate(this.#turn);
	};
}

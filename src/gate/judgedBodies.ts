import { TurnsByKey } from "./turnsByKey.ts";
import { wholeBodyBytes } from "./wholeBody.ts";

/** What a body's memory is counted in. */
const blockBytes = 64 * 1024;
/** How long the event loop is left to others after a piece, as a multiple of what it took. */
const restFor = 2;
/** And for so many bytes at least: their memory is collected too. It comes to some 20 MiB a second for all. */
const leastRestMs = 3;
const bytesOfLeastRest = 64 * 1024;

/**
 * The memory and the time for bodies that a rule must see whole before Ollama
 * does. Small ones need neither leave nor turn.
 */
export class JudgedBodies {
	#heldBytes = 0;
	/** What the event loop has not been left yet. */
	#owedMs = 0;
	readonly #ofKey = new Map<string, number>();
	readonly #waiting = new TurnsByKey<() => void>();

	/**
	 * Takes room for a body that has grown.
	 *
	 * @param sizeBytes of the body so far
	 * @param heldBytes what has been taken for it already
	 * @param roomBytes for all bodies together; one key's may have half of it
	 * @returns what is held for it now, or `undefined` if room is lacking
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
	 * Judges a piece of a large body, and calls back when the next piece of it may
	 * be: one of all bodies at a time, the keys by turns, and together they have a
	 * third of the time.
	 */
	inTurn(
		key: string,
		sizeBytes: number,
		judge: () => void,
		go: () => void,
	): void {
		const startMs = performance.now();
		judge();
		const tookMs = performance.now() - startMs;
		this.#owedMs += Math.max(
			(leastRestMs * sizeBytes) / bytesOfLeastRest,
			restFor * tookMs,
		);
		const isFirst = this.#waiting.isEmpty;
		this.#waiting.add(key, go);
		if (isFirst) this.#rest();
	}

	/** A timer is not finer than a millisecond, so what is owed is gathered until it is worth one. */
	#rest(): void {
		if (this.#owedMs < 1) {
			setImmediate(this.#turn);
			return;
		}
		setTimeout(this.#turn, this.#owedMs);
		this.#owedMs = 0;
	}

	readonly #turn = (): void => {
		this.#waiting.next()?.();
		if (!this.#waiting.isEmpty) this.#rest();
	};
}

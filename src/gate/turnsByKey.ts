/** What waits: of each key the first come first, and the keys by turns, however much one has. */
export class TurnsByKey<T> {
	/** By key, the one whose turn is next first. */
	readonly #waiting = new Map<string, Set<T>>();

	get isEmpty(): boolean {
		return this.#waiting.size === 0;
	}

	/** How many of a key's wait. */
	countOf(key: string): number {
		return this.#waiting.get(key)?.size ?? 0;
	}

	add(key: string, one: T): void {
		const ofKey = this.#waiting.get(key);
		if (ofKey === undefined) this.#waiting.set(key, new Set([one]));
		else ofKey.add(one);
	}

	/**
	 * Takes out the one whose turn it is, if there is one.
	 *
	 * @param mayGo whose turn it may be
	 */
	next(mayGo: (key: string) => boolean = () => true): T | undefined {
		for (const [key, ofKey] of this.#waiting) {
			if (!mayGo(key)) continue;
			// The next turn is another key's.
			this.#waiting.delete(key);
			for (const one of ofKey) {
				ofKey.delete(one);
				if (ofKey.size > 0) this.#waiting.set(key, ofKey);
				return one;
			}
		}
		return undefined;
	}

	/** It waits no more. Returns false if it did not wait. */
	drop(key: string, one: T): boolean {
		const ofKey = this.#waiting.get(key);
		if (ofKey?.delete(one) !== true) return false;
		if (ofKey.size === 0) this.#waiting.delete(key);
		return true;
	}
}

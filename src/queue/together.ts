/** Sets of models that are remembered. */
const maxSets = 16;

/**
 * Which models were seen loaded at one time, by their keys. Of three that fit in
 * pairs one may have to go all the same, so it is sets that are remembered.
 */
export class Together {
	#sets: ReadonlySet<string>[] = [];

	/** Whether all of these were loaded at one time. */
	hold(keys: readonly string[]): boolean {
		return this.#sets.some((known) => keys.every((key) => known.has(key)));
	}

	/** These are loaded now. */
	seen(keys: ReadonlySet<string>): void {
		if (keys.size < 2 || this.hold([...keys])) return;
		this.#sets = this.#sets.filter(
			(known) => ![...known].every((key) => keys.has(key)),
		);
		this.#sets.push(new Set(keys));
		if (this.#sets.length > maxSets) this.#sets.shift();
	}

	/** One of these had to go for the other. */
	parted(a: string, b: string): void {
		this.#sets = this.#sets.filter((known) => !(known.has(a) && known.has(b)));
	}

	forget(): void {
		this.#sets = [];
	}
}

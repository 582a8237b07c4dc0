/** How long Valkey keeps what a gate has said of slots. */
export const slotsKeptMs = 120_000;
/** How long what is given back waits for others to go with it. */
const togetherMs = 10;
/** Keys that one script takes. */
const maxAtOnce = 200;

interface Held {
	/** Slots that this gate has. */
	own: number;
	/** How many it has by what Valkey was told last; -1 where that is not known. */
	written: number;
}

/** Writes what this gate has now: by name how many slots. Resolves with whether it is written. */
export type WriteSlots = (
	slots: readonly (readonly [string, number])[],
) => Promise<boolean>;

/**
 * This gate's part of the slots. Valkey is told how many it has, never that it has
 * one more or less: what is told twice, late or not at all is put right by what is
 * told next.
 */
export class Slots {
	readonly #held = new Map<string, Held>();
	readonly #write: WriteSlots;
	#timer: NodeJS.Timeout | undefined;

	constructor(write: WriteSlots) {
		this.#write = write;
	}

	/** How many this gate has with one more. It has that one until it gives it back. */
	claim(name: string): number {
		let held = this.#held.get(name);
		if (held === undefined) {
			held = { own: 0, written: 0 };
			this.#held.set(name, held);
		}
		held.own += 1;
		return held.own;
	}

	inUse(name: string): number {
		return this.#held.get(name)?.own ?? 0;
	}

	/** Valkey has written that this gate has so many. */
	written(name: string, count: number): void {
		const held = this.#held.get(name);
		if (held === undefined) return;
		held.written = count;
		if (held.own !== count) this.#writeSoon();
	}

	giveBack(name: string): void {
		const held = this.#held.get(name);
		if (held === undefined) return;
		held.own -= 1;
		if (held.own !== held.written) this.#writeSoon();
	}

	/**
	 * Tells Valkey all of it anew: it may have lost it, and forgets it in time.
	 *
	 * @param isBack whether it was away: what it was told before may come late
	 */
	refresh(isBack: boolean): void {
		for (const [name, held] of this.#held)
			if (!isBack && held.own === 0 && held.written === 0)
				this.#held.delete(name);
			else held.written = -1;
		if (this.#held.size > 0) this.#writeSoon();
	}

	stop(): void {
		clearTimeout(this.#timer);
	}

	#writeSoon(): void {
		this.#timer ??= setTimeout(() => {
			this.#timer = undefined;
			void this.#writeNow();
		}, togetherMs).unref();
	}

	async #writeNow(): Promise<void> {
		const changed = [...this.#held].filter(
			([, { own, written }]) => own !== written,
		);
		for (let from = 0; from < changed.length; from += maxAtOnce) {
			const some = changed.slice(from, from + maxAtOnce);
			// Before the answer: what changes until then is another change.
			for (const [, held] of some) held.written = held.own;
			const isWritten = await this.#write(
				some.map(([name, { own }]) => [name, own] as const),
			);
			// The next refresh tells it.
			if (!isWritten) for (const [, held] of some) held.written = -1;
		}
	}
}

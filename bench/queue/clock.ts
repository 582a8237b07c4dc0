import { Heap, type Heaped } from "../../src/queue/heap.ts";

/** Something that happens at its time. */
interface Event extends Heaped {
	readonly atMs: number;
	/** Of two at one time the one that was planned first happens first. */
	readonly number: number;
	happen(): void;
}

/** Simulated time: it jumps from one event to the next. */
export class Clock {
	nowMs = 0;
	#planned = 0;
	readonly #events = new Heap<Event>((a, b) =>
		a.atMs === b.atMs ? a.number < b.number : a.atMs < b.atMs,
	);

	/** Has something happen after a while. */
	after(delayMs: number, happen: () => void): void {
		this.#planned += 1;
		this.#events.add({
			...{ heapIndex: -1, atMs: this.nowMs + delayMs, number: this.#planned },
			happen,
		});
	}

	/** Runs until nothing is planned before the given time. */
	runUntil(endMs: number): void {
		for (;;) {
			const { first } = this.#events;
			if (first === undefined || first.atMs > endMs) break;
			this.#events.delete(first);
			this.nowMs = first.atMs;
			first.happen();
		}
		this.nowMs = endMs;
	}
}

/** Numbers from 0 up to 1 that are the same for one seed (mulberry32). */
export function randomFrom(seed: number): () => number {
	let state = seed >>> 0;
	return () => {
		state = (state + 0x6d2b79f5) >>> 0;
		let mixed = Math.imul(state ^ (state >>> 15), state | 1);
		mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
		return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
	};
}

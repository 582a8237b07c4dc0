import { priorities } from "../priority.ts";

const batchRank = priorities.indexOf("batch");
/** A model with fewer slots has none to spare: one of four is a quarter of what it can do. */
const leastSlots = 4;
/** For how long it is left free after the last request of a higher class. */
const leftMs = 60_000;

/**
 * One slot of a model that the class batch leaves free while somebody of a higher
 * class is about, so that who comes next does not have to wait for the end of a
 * long request. Several that began together also end together, and until then
 * not one slot falls free.
 */
export class SpareSlot {
	#batchRunning = 0;
	#leftUntilMs = Number.NEGATIVE_INFINITY;

	/** A request of a class has come. */
	came(rank: number, nowMs: number): void {
		if (rank !== batchRank) this.#leftUntilMs = nowMs + leftMs;
	}

	started(rank: number, nowMs: number): void {
		if (rank === batchRank) this.#batchRunning += 1;
		else this.came(rank, nowMs);
	}

	ended(rank: number, nowMs: number): void {
		if (rank === batchRank) this.#batchRunning -= 1;
		else this.came(rank, nowMs);
	}

	/** From when on one more request of a class may run on a model with so many slots; long past if it may anyway. */
	freeAtMs(rank: number, slots: number): number {
		const leavesOne =
			rank === batchRank &&
			slots >= leastSlots &&
			this.#batchRunning >= slots - 1;
		return leavesOne ? this.#leftUntilMs : Number.NEGATIVE_INFINITY;
	}
}

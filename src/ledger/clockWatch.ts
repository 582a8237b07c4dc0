import { uptime } from "node:os";

/** Clocks that nobody sets; milliseconds since any moment. */
export interface SteadyClocks {
	/** May stand still while the machine sleeps. Asked often. */
	awakeMs(): number;
	/** Goes on while the machine sleeps. Asked rarely: it may read a file. */
	withSleepMs(): number;
}

/** Those of this machine. */
export const steadyClocks: SteadyClocks = {
	awakeMs: () => performance.now(),
	withSleepMs: () => uptime() * 1000,
};

/** Less may be two looks at clocks of which each takes its time, or a leap second. */
const clearlyMs = 60_000;

/** Finds out that the wall clock was set, as it is on a machine that starts without the time. */
export class ClockWatch {
	readonly #clocks: SteadyClocks;
	/** What the wall clock was ahead of each, when that was last asked. */
	#aheadOfAwakeMs: number;
	#aheadOfSleepMs: number;

	/** @param wallMs now, epoch milliseconds */
	constructor(clocks: SteadyClocks, wallMs: number) {
		this.#clocks = clocks;
		this.#aheadOfAwakeMs = wallMs - clocks.awakeMs();
		this.#aheadOfSleepMs = wallMs - clocks.withSleepMs();
	}

	/**
	 * By how much the wall clock was set since the last look, below 0 where it was put
	 * back; 0 where that is less than a minute, or the machine has slept.
	 *
	 * @param wallMs now, epoch milliseconds
	 */
	setByMs(wallMs: number): number {
		const aheadMs = wallMs - this.#clocks.awakeMs();
		const movedMs = aheadMs - this.#aheadOfAwakeMs;
		this.#aheadOfAwakeMs = aheadMs;
		if (Math.abs(movedMs) <= clearlyMs) return 0;
		const aheadOfSleepMs = wallMs - this.#clocks.withSleepMs();
		const byMs = aheadOfSleepMs - this.#aheadOfSleepMs;
		this.#aheadOfSleepMs = aheadOfSleepMs;
		return Math.abs(byMs) > clearlyMs ? byMs : 0;
	}
}

/** What must come of a large body that takes room, or whose turn it is. */
const leastBytesPerSecond = 16 * 1024;
const windowMs = 30_000;

/** Whether a body comes fast enough, counted over windows of 30 s. */
export class LeastRate {
	/** Whole intervals in this window, which a sweep begins, and bytes before it. */
	#sweeps = -1;
	#bytesBefore: number;

	/** @param bytes of the body when it began to be held, or to flow */
	constructor(bytes: number) {
		this.#bytesBefore = bytes;
	}

	/**
	 * Called at a fixed interval while something of the body could come.
	 *
	 * @param bytes of the body so far
	 * @param idleTimeoutMs a window is no longer than this
	 */
	isTooLow(bytes: number, intervalMs: number, idleTimeoutMs: number): boolean {
		this.#sweeps += 1;
		const pastMs = this.#sweeps * intervalMs;
		if (pastMs < Math.min(windowMs, idleTimeoutMs)) return false;
		const came = bytes - this.#bytesBefore;
		this.#sweeps = 0;
		this.#bytesBefore = bytes;
		return came < (leastBytesPerSecond * pastMs) / 1000;
	}
}

/** Time and chance, so that a test need not wait for either. */
export interface Clock {
	/** Epoch milliseconds. */
	nowMs(): number;
	/** Calls back once; returns what calls that off. It does not keep the process alive. */
	after(delayMs: number, action: () => void): () => void;
	/** From 0 up to 1. */
	random(): number;
}

export const realClock: Clock = {
	nowMs: () => Date.now(),
	after(delayMs, action) {
		const timer = setTimeout(action, delayMs);
		timer.unref();
		return () => clearTimeout(timer);
	},
	random: () => Math.random(),
};

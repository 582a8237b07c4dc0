/** The time, and what waits for it. Tests have one of their own. */
export interface AlarmClock {
	/** Epoch milliseconds. */
	now(): number;
	/** @returns what takes it back */
	after(delayMs: number, action: () => void): () => void;
}

export const systemClock: AlarmClock = {
	now: Date.now,
	after(delayMs, action) {
		const timer = setTimeout(action, delayMs).unref();
		return () => clearTimeout(timer);
	},
};

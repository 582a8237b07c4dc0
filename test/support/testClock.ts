import type { Clock } from "../../src/tls/clock.ts";

/** A clock that a test winds on; what is due then is called, and chance is the middle. */
export interface TestClock extends Clock {
	/** How long until the next thing is due; `undefined` while nothing is. */
	nextMs(): number | undefined;
	/** Winds on to the next thing that is due, and has it done. */
	next(): void;
	/** Winds on, without anything being done. */
	skip(durationMs: number): void;
}

export function testClock(startMs = Date.now()): TestClock {
	let nowMs = startMs;
	const waiting = new Map<() => void, number>();
	const first = () => [...waiting].toSorted(([, a], [, b]) => a - b).at(0);
	return {
		nowMs: () => nowMs,
		after(delayMs, action) {
			const due = () => action();
			waiting.set(due, nowMs + delayMs);
			return () => void waiting.delete(due);
		},
		random: () => 0.5,
		nextMs() {
			const [, atMs] = first() ?? [];
			return atMs === undefined ? undefined : Math.max(0, atMs - nowMs);
		},
		next() {
			const found = first();
			if (found === undefined) throw new Error("nothing is due");
			waiting.delete(found[0]);
			nowMs = Math.max(nowMs, found[1]);
			found[0]();
		},
		skip(durationMs) {
			nowMs += durationMs;
		},
	};
}

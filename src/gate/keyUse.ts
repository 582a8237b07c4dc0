/** When and from where a key was used, as far back as this process has run. */
export interface KeyUse {
	/** ISO 8601. */
	readonly lastUsed: string;
	/** The tailnet device, or the address where none was looked up. */
	readonly lastFrom: string;
	/** Requests in the last 24 hours. */
	readonly lastDay: number;
}

const hourMs = 3_600_000;

interface Held {
	lastUsedMs: number;
	lastFrom: string;
	/** Requests by hour of the day; an hour's count is of its last occurrence. */
	readonly counts: number[];
	hour: number;
}

/** Evidence for rotation: which keys are in use, from where, how much. */
export class KeyUses {
	readonly #uses = new Map<string, Held>();

	/** @param nowMs epoch milliseconds */
	record(key: string, from: string, nowMs: number): void {
		let held = this.#uses.get(key);
		const hour = Math.floor(nowMs / hourMs);
		if (held === undefined) {
			held = {
				lastUsedMs: nowMs,
				lastFrom: from,
				counts: new Array<number>(24).fill(0),
				hour,
			};
			this.#uses.set(key, held);
		}
		forgetOldHours(held, hour);
		held.lastUsedMs = nowMs;
		held.lastFrom = from;
		const at = hour % 24;
		held.counts[at] = (held.counts[at] ?? 0) + 1;
	}

	/** Every key that has been used, by name. */
	report(nowMs: number): Record<string, KeyUse> {
		const report: Record<string, KeyUse> = {};
		for (const [name, held] of this.#uses) {
			forgetOldHours(held, Math.floor(nowMs / hourMs));
			report[name] = {
				lastUsed: new Date(held.lastUsedMs).toISOString(),
				lastFrom: held.lastFrom,
				lastDay: held.counts.reduce((sum, count) => sum + count, 0),
			};
		}
		return report;
	}
}

function forgetOldHours(held: Held, hour: number): void {
	// A clock that was set back counts on in the hour it knows.
	for (
		let passed = held.hour + 1;
		passed <= Math.min(hour, held.hour + 24);
		passed++
	)
		held.counts[passed % 24] = 0;
	held.hour = Math.max(held.hour, hour);
}

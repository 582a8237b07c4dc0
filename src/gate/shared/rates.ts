import type { Count } from "../rateLimit.ts";

interface Window {
	/** What all gates had counted when Valkey told last. */
	known: number;
	/** What this gate has counted since, with Valkey away. */
	own: number;
	endsAtMs: number;
}

/** Beyond so many keys and addresses the one whose minute began first is forgotten. */
const maxWindows = 20_000;
/** Near its end a minute here may already be over in Valkey, by as long as an answer may take and some. */
const unsureMs = 300;

/** Requests in this minute, as far as this gate knows: for when Valkey is away, and for when it has lost its data. */
export class Rates {
	/** In the order in which they began. */
	readonly #windows = new Map<string, Window>();

	/** What Valkey must have counted at the least, and for how much longer that holds. */
	floorOf(name: string, nowMs: number): { floor: number; restMs: number } {
		const window = this.#windows.get(name);
		const restMs = Math.ceil((window?.endsAtMs ?? 0) - nowMs);
		return window === undefined || restMs <= unsureMs
			? { floor: 0, restMs: 0 }
			: { floor: window.known + window.own, restMs };
	}

	/** Valkey has counted so many. */
	told(name: string, count: number, restMs: number, nowMs: number): void {
		const window = this.#windowOf(name, nowMs, restMs);
		window.known = count;
		window.own = 0;
		window.endsAtMs = nowMs + restMs;
	}

	/**
	 * Counts a request that Valkey did not. What is left of the limit is divided
	 * by the gates, and rounded up.
	 */
	countAlone(
		name: string,
		gates: number,
		windowMs: number,
		nowMs: number,
	): { count: number; restMs: number } {
		const window = this.#windowOf(name, nowMs, windowMs);
		window.own += 1;
		return {
			count: window.known + (window.own - 1) * gates + 1,
			restMs: window.endsAtMs - nowMs,
		};
	}

	#windowOf(name: string, nowMs: number, lengthMs: number): Window {
		let window = this.#windows.get(name);
		if (window !== undefined && window.endsAtMs > nowMs) return window;
		this.#windows.delete(name);
		const [oldest] = this.#windows.keys();
		if (this.#windows.size >= maxWindows && oldest !== undefined)
			this.#windows.delete(oldest);
		window = { known: 0, own: 0, endsAtMs: nowMs + lengthMs };
		this.#windows.set(name, window);
		return window;
	}
}

/** A count in the form in which limits are judged. */
export function countOf(
	max: number,
	{ count, restMs }: { count: number; restMs: number },
): Count {
	return {
		max,
		remaining: Math.max(0, max - count),
		ttlInSeconds: Math.ceil(restMs / 1000),
		isExceeded: count > max,
	};
}

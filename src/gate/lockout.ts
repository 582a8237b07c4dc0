import type { Refusal } from "./refusal.ts";

interface Failures {
	count: number;
	windowEndsAtMs: number;
	lockedUntilMs: number;
}

/** `limits.authFailures`, in milliseconds. */
export interface LockoutRule {
	readonly max: number;
	readonly windowMs: number;
	readonly lockoutMs: number;
}

const maxAddresses = 20_000;

/**
 * Step 2: an address that showed too many wrong keys is turned away before its
 * next key is looked at, so that guessing stops even where fail2ban is not.
 */
export class Lockout {
	readonly #failures = new Map<string, Failures>();

	/** @param nowMs any clock that only moves forward */
	check(address: string, nowMs: number): Refusal | undefined {
		const failures = this.#failures.get(address);
		if (failures === undefined || failures.lockedUntilMs <= nowMs)
			return undefined;
		const seconds = Math.ceil((failures.lockedUntilMs - nowMs) / 1000);
		return {
			status: 429,
			reason: "locked_out",
			message: `too many wrong keys from this address; try again in ${seconds} s`,
			headers: ["retry-after", String(seconds)],
		};
	}

	/** Counts a wrong key. Returns whether it locked the address out. */
	recordFailure(address: string, rule: LockoutRule, nowMs: number): boolean {
		let failures = this.#failures.get(address);
		if (failures === undefined || failures.windowEndsAtMs <= nowMs) {
			this.#failures.delete(address);
			this.#makeRoom(nowMs);
			failures = {
				count: 0,
				windowEndsAtMs: nowMs + rule.windowMs,
				lockedUntilMs: 0,
			};
			this.#failures.set(address, failures);
		}
		failures.count += 1;
		if (failures.count < rule.max) return false;
		failures.lockedUntilMs = nowMs + rule.lockoutMs;
		failures.windowEndsAtMs = Math.max(
			failures.windowEndsAtMs,
			failures.lockedUntilMs,
		);
		return true;
	}

	/** How many addresses are locked out now. */
	lockedCount(nowMs: number): number {
		let locked = 0;
		for (const { lockedUntilMs } of this.#failures.values())
			if (lockedUntilMs > nowMs) locked += 1;
		return locked;
	}

	#makeRoom(nowMs: number): void {
		if (this.#failures.size < maxAddresses) return;
		for (const [address, { windowEndsAtMs }] of this.#failures) {
			if (windowEndsAtMs <= nowMs) this.#failures.delete(address);
		}
		const [oldest] = this.#failures.keys();
		if (this.#failures.size >= maxAddresses && oldest !== undefined)
			this.#failures.delete(oldest);
	}
}

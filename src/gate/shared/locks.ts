import { pairedAddress } from "../../net/ranges.ts";
import { maxToldLocks } from "../../valkey/scripts.ts";
import type { Lockout, LockoutRule } from "../lockout.ts";

/** What is told to the other gates, in the background. */
export interface LockTelling {
	/** Resolves with how long the address is locked out for what all gates have seen; 0 if it is not. */
	failed(place: string, fresh: number, rule: LockoutRule): Promise<number>;
	locked(hashes: readonly (readonly [string, number])[]): void;
	/** Whether Valkey has it. */
	unlocked(hashes: readonly string[]): Promise<boolean>;
	hash(place: string): string;
}

/** Everybody, where one is let in again. */
const all = "*";

/**
 * Lockouts of all gates. A gate decides by its own list, at once; what the others
 * have is told to it every second, as hashes of addresses, and goes into that list
 * when such an address calls.
 */
export class SharedLocks {
	readonly #lockout: Lockout;
	readonly #tell: LockTelling;
	/** Of all gates: the hash of an address, and until when. */
	#locked = new Map<string, number>();
	/** Let in again here; Valkey has not been told. */
	#unlocks: string[] = [];
	/** Told, and to be told back. */
	readonly #ownUnlocks = new Set<string>();

	constructor(lockout: Lockout, tell: LockTelling) {
		this.#lockout = lockout;
		this.#tell = tell;
		lockout.onLocked = (places, lockoutMs) =>
			this.#tell.locked(
				places.map((place) => [this.#tell.hash(place), lockoutMs]),
			);
	}

	/** How many are locked out, by the word of all gates. */
	get count(): number {
		return this.#locked.size;
	}

	/** Locks an address out here if another gate has done so. */
	adopt(address: string, nowMs: number): void {
		if (this.#locked.size === 0) return;
		const untilMs = this.#locked.get(this.#tell.hash(pairedAddress(address)));
		if (untilMs !== undefined && untilMs > nowMs)
			this.#lockout.lock(address, untilMs, nowMs);
	}

	/** Adds wrong keys of an address to those that other gates have seen. */
	async failed(
		address: string,
		fresh: number,
		rule: LockoutRule,
	): Promise<boolean> {
		const [place = address] = this.#lockout.placesOf(address);
		const leftMs = await this.#tell.failed(place, fresh, rule);
		if (leftMs === 0) return false;
		const nowMs = performance.now();
		this.#lockout.lock(address, nowMs + leftMs, nowMs);
		this.#tellOf(this.#lockout.placesOf(address), leftMs);
		return true;
	}

	/** @param places let in again here; `undefined` for all */
	unlocked(places: readonly string[] | undefined): void {
		const hashes = places?.map((place) =>
			this.#tell.hash(pairedAddress(place)),
		) ?? [all];
		this.#letIn(hashes);
		this.#unlocks = [...new Set([...this.#unlocks, ...hashes])].slice(
			-maxToldLocks,
		);
		void this.#tellUnlocks();
	}

	/**
	 * What Valkey has.
	 *
	 * @param locks hash and milliseconds, in turn
	 * @param unlocks hashes that were let in again
	 */
	told(locks: readonly unknown[], unlocks: readonly unknown[]): void {
		const nowMs = performance.now();
		this.#locked = new Map();
		for (let at = 0; at + 1 < locks.length; at += 2)
			this.#locked.set(String(locks[at]), nowMs + Number(locks[at + 1]));
		this.#letIn(this.#unlocks);
		const others = unlocks
			.map(String)
			.filter((hash) => !this.#ownUnlocks.delete(hash));
		if (others.length === 0) return;
		const letIn = new Set(others);
		for (const { places } of this.#lockout.lockedPlaces(nowMs))
			if (
				letIn.has(all) ||
				places.some((place) => letIn.has(this.#tell.hash(place)))
			)
				this.#lockout.unlock(places[0] ?? "", nowMs);
	}

	/** Valkey is back, and may have lost them. */
	back(): void {
		void this.#tellUnlocks();
		for (const { places, leftMs } of this.#lockout
			.lockedPlaces(performance.now())
			.slice(0, maxToldLocks))
			this.#tellOf(places, Math.ceil(leftMs));
	}

	#letIn(hashes: readonly string[]): void {
		for (const hash of hashes) this.#locked.delete(hash);
		if (hashes.includes(all)) this.#locked.clear();
	}

	#tellOf(places: readonly string[], leftMs: number): void {
		this.#tell.locked(places.map((place) => [this.#tell.hash(place), leftMs]));
	}

	async #tellUnlocks(): Promise<void> {
		const hashes = this.#unlocks;
		if (hashes.length === 0) return;
		for (const hash of hashes) this.#ownUnlocks.add(hash);
		if (await this.#tell.unlocked(hashes))
			this.#unlocks = this.#unlocks.filter((hash) => !hashes.includes(hash));
		else for (const hash of hashes) this.#ownUnlocks.delete(hash);
	}
}

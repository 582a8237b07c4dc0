import { hash, randomBytes } from "node:crypto";
import type { LockedOut } from "../admin/status.ts";
import { pairedAddress } from "../net/ranges.ts";
import type { Refusal } from "./refusal.ts";

/** What shows wrong keys: an address, or the addresses of one device once tailscaled has named them. */
interface Suspect {
	/** As seen, or as tailscaled said. */
	addresses: Set<string>;
	/** The device's name, where tailscaled has said it. */
	node: string | undefined;
	/** Different wrong keys in this window. */
	count: number;
	windowEndsAtMs: number;
	lockedUntilMs: number;
	seenAtMs: number;
	/** When each wrong key was shown last, by its digest; in that order. */
	readonly guesses: Map<string, number>;
}

/** `limits.authFailures`, in milliseconds. */
export interface LockoutRule {
	readonly max: number;
	readonly windowMs: number;
	readonly lockoutMs: number;
}

/** What became of wrong keys that were shown. */
export interface Failure {
	/** How many of them had not been shown before. */
	readonly fresh: number;
	/** Whether they locked the address out. */
	readonly lockedOut: boolean;
}

const maxAddresses = 20_000;
/** A wrong key that has not come for so long counts anew. */
const rememberMs = 3_600_000;
/** Wrong keys that are remembered of one suspect, and of all. What is not remembered counts each time. */
const maxGuessesOfOne = 128;
const maxGuesses = 100_000;
/** A device has two addresses; a list that is much longer is none of a device's. */
const maxAddressesOfOne = 8;
const purgeIntervalMs = 1_000;

/**
 * Step 2: an address that showed too many different wrong keys is turned away
 * before its next key is looked at, so that guessing stops even where fail2ban
 * is not. The same wrong key again is a client with an old key, and no guess.
 */
export class Lockout {
	/** By address, those that come seldom first; the addresses of one device lead to the same. */
	readonly #suspects = new Map<string, Suspect>();
	/** Digests are keyed, so that what is kept says nothing of the keys. */
	readonly #secret = randomBytes(32);
	/** Told of whom wrong keys have locked out, with all its addresses, and for how long. */
	onLocked:
		| ((places: readonly string[], lockoutMs: number) => void)
		| undefined;
	#guessCount = 0;
	#purgedAtMs = Number.NEGATIVE_INFINITY;

	/** @param nowMs any clock that only moves forward */
	check(address: string, nowMs: number): Refusal | undefined {
		const suspect = this.#suspects.get(pairedAddress(address));
		if (suspect === undefined || suspect.lockedUntilMs <= nowMs)
			return undefined;
		const seconds = secondsLeft(suspect, nowMs);
		return {
			status: 429,
			reason: "locked_out",
			message: `too many wrong keys from this address; try again in ${seconds} s`,
			headers: ["retry-after", String(seconds)],
		};
	}

	/**
	 * Counts the wrong keys of one request.
	 *
	 * @param guesses as they were shown; only keyed digests of them are kept
	 */
	recordFailure(
		address: string,
		guesses: readonly string[],
		rule: LockoutRule,
		nowMs: number,
	): Failure {
		const suspect = this.#suspectAt(address, nowMs);
		let fresh = 0;
		for (const guess of guesses)
			if (this.#isFresh(suspect, this.#digestOf(guess), nowMs)) fresh += 1;
		if (fresh === 0) return { fresh, lockedOut: false };
		if (suspect.windowEndsAtMs <= nowMs) {
			suspect.count = 0;
			suspect.windowEndsAtMs = nowMs + rule.windowMs;
		}
		suspect.count += fresh;
		return { fresh, lockedOut: this.#lockIfTooMany(suspect, rule, nowMs) };
	}

	/** Locks an address out, with its device's others, for what was seen elsewhere. */
	lock(address: string, untilMs: number, nowMs: number): void {
		const suspect = this.#suspectAt(address, nowMs);
		suspect.lockedUntilMs = Math.max(suspect.lockedUntilMs, untilMs);
		suspect.windowEndsAtMs = Math.max(suspect.windowEndsAtMs, untilMs);
	}

	/** The addresses that count as one with this one, in an order that is the same wherever they are known. */
	placesOf(address: string): string[] {
		const place = pairedAddress(address);
		const suspect = this.#suspects.get(place);
		return suspect === undefined ? [place] : placesOf(suspect);
	}

	/** Those who are locked out now: their addresses, and for how many milliseconds more. */
	lockedPlaces(nowMs: number): { places: string[]; leftMs: number }[] {
		return [...new Set(this.#suspects.values())]
			.filter(({ lockedUntilMs }) => lockedUntilMs > nowMs)
			.map((suspect) => ({
				places: placesOf(suspect),
				leftMs: suspect.lockedUntilMs - nowMs,
			}));
	}

	/** Whether it is known which other addresses belong to this one's device. */
	isPaired(address: string): boolean {
		return this.#suspects.get(pairedAddress(address))?.node !== undefined;
	}

	/**
	 * Makes one of the addresses of a device, which tailscaled has told: what was
	 * counted of each is added up, and all of them are locked out together. Does
	 * nothing where none of them has shown a wrong key.
	 */
	pair(
		addresses: readonly string[],
		node: string,
		rule: LockoutRule,
		nowMs: number,
	): void {
		if (addresses.length > maxAddressesOfOne) return;
		const places = new Set(addresses.map(pairedAddress));
		const suspects = new Set(
			[...places].flatMap((place) => this.#suspects.get(place) ?? []),
		);
		const [first, ...others] = suspects;
		if (first === undefined) return;
		for (const suspect of suspects) this.#takeOut(suspect);
		for (const other of others) this.#merge(first, other);
		first.node = node;
		first.addresses = new Set(addresses);
		for (const place of places) this.#suspects.set(place, first);
		if (first.lockedUntilMs <= nowMs && first.windowEndsAtMs > nowMs)
			this.#lockIfTooMany(first, rule, nowMs);
	}

	/** How many are locked out now; a device counts once. */
	lockedCount(nowMs: number): number {
		let locked = 0;
		for (const { lockedUntilMs } of new Set(this.#suspects.values()))
			if (lockedUntilMs > nowMs) locked += 1;
		return locked;
	}

	/** Who is locked out now, at most so many. */
	list(nowMs: number, most: number): LockedOut[] {
		const locked: LockedOut[] = [];
		for (const suspect of new Set(this.#suspects.values())) {
			if (locked.length >= most) break;
			if (suspect.lockedUntilMs > nowMs) locked.push(tell(suspect, nowMs));
		}
		return locked;
	}

	/** Lets an address in again, with its device's others, and forgets what it showed. Returns who that was. */
	unlock(address: string, nowMs: number): LockedOut[] {
		const suspect = this.#suspects.get(pairedAddress(address));
		if (suspect === undefined || suspect.lockedUntilMs <= nowMs) return [];
		const told = tell(suspect, nowMs);
		this.#forget(suspect);
		return [told];
	}

	/** Lets everybody in again. Returns who was locked out. */
	unlockAll(nowMs: number): LockedOut[] {
		return this.list(nowMs, Number.POSITIVE_INFINITY).flatMap(
			({ addresses: [address = ""] }) => this.unlock(address, nowMs),
		);
	}

	#lockIfTooMany(suspect: Suspect, rule: LockoutRule, nowMs: number): boolean {
		if (!lockIfTooMany(suspect, rule, nowMs)) return false;
		this.onLocked?.(placesOf(suspect), rule.lockoutMs);
		return true;
	}

	#digestOf(guess: string): string {
		return hash(
			"sha256",
			Buffer.concat([this.#secret, Buffer.from(guess, "latin1")]),
			"base64",
		);
	}

	/** The record of an address, as the one that came last. */
	#suspectAt(address: string, nowMs: number): Suspect {
		const place = pairedAddress(address);
		let suspect = this.#suspects.get(place);
		if (suspect !== undefined) this.#takeOut(suspect);
		else {
			this.#makeRoom(nowMs);
			suspect = {
				addresses: new Set(),
				node: undefined,
				count: 0,
				windowEndsAtMs: 0,
				lockedUntilMs: 0,
				seenAtMs: nowMs,
				guesses: new Map(),
			};
		}
		suspect.seenAtMs = nowMs;
		suspect.addresses.add(address);
		for (const one of suspect.addresses)
			this.#suspects.set(pairedAddress(one), suspect);
		return suspect;
	}

	#isFresh({ guesses }: Suspect, digest: string, nowMs: number): boolean {
		const seenAtMs = guesses.get(digest);
		if (seenAtMs !== undefined) {
			guesses.delete(digest);
			guesses.set(digest, nowMs);
			return seenAtMs + rememberMs <= nowMs;
		}
		for (const [old, oldSeenAtMs] of guesses) {
			if (guesses.size < maxGuessesOfOne && oldSeenAtMs + rememberMs > nowMs)
				break;
			guesses.delete(old);
			this.#guessCount -= 1;
		}
		if (this.#guessCount >= maxGuesses) this.#purge(nowMs);
		if (this.#guessCount >= maxGuesses) return true;
		guesses.set(digest, nowMs);
		this.#guessCount += 1;
		return true;
	}

	#merge(into: Suspect, other: Suspect): void {
		let shared = 0;
		for (const [digest, seenAtMs] of other.guesses) {
			if (into.guesses.has(digest)) shared += 1;
			else if (into.guesses.size < maxGuessesOfOne) {
				into.guesses.set(digest, seenAtMs);
				continue;
			}
			this.#guessCount -= 1;
		}
		into.count = Math.max(
			into.count,
			other.count,
			into.count + other.count - shared,
		);
		into.windowEndsAtMs = Math.max(into.windowEndsAtMs, other.windowEndsAtMs);
		into.lockedUntilMs = Math.max(into.lockedUntilMs, other.lockedUntilMs);
		into.seenAtMs = Math.max(into.seenAtMs, other.seenAtMs);
	}

	#takeOut({ addresses }: Suspect): void {
		for (const address of addresses)
			this.#suspects.delete(pairedAddress(address));
	}

	#forget(suspect: Suspect): void {
		this.#takeOut(suspect);
		this.#guessCount -= suspect.guesses.size;
	}

	/** Forgets those of whom nothing is left that counts; seldom, since it looks at all. */
	#purge(nowMs: number): void {
		if (nowMs - this.#purgedAtMs < purgeIntervalMs) return;
		this.#purgedAtMs = nowMs;
		for (const suspect of new Set(this.#suspects.values())) {
			const { seenAtMs, windowEndsAtMs, lockedUntilMs } = suspect;
			if (
				Math.max(seenAtMs + rememberMs, windowEndsAtMs, lockedUntilMs) <= nowMs
			)
				this.#forget(suspect);
		}
	}

	#makeRoom(nowMs: number): void {
		if (this.#suspects.size < maxAddresses) return;
		this.#purge(nowMs);
		for (const oldest of this.#suspects.values()) {
			if (this.#suspects.size < maxAddresses) break;
			this.#forget(oldest);
		}
	}
}

function lockIfTooMany(
	suspect: Suspect,
	rule: LockoutRule,
	nowMs: number,
): boolean {
	if (suspect.count < rule.max) return false;
	suspect.lockedUntilMs = nowMs + rule.lockoutMs;
	suspect.windowEndsAtMs = Math.max(
		suspect.windowEndsAtMs,
		suspect.lockedUntilMs,
	);
	return true;
}

function placesOf({ addresses }: Suspect): string[] {
	return [...new Set([...addresses].map(pairedAddress))].sort();
}

function secondsLeft({ lockedUntilMs }: Suspect, nowMs: number): number {
	return Math.ceil((lockedUntilMs - nowMs) / 1000);
}

function tell(suspect: Suspect, nowMs: number): LockedOut {
	return {
		addresses: [...suspect.addresses],
		node: suspect.node || null,
		secondsLeft: secondsLeft(suspect, nowMs),
	};
}

import { Heap, type Heaped } from "./heap.ts";

/**
 * Who has had how much of the GPU: the Virtual Token Counter of Sheng et al.,
 * "Fairness in Serving Large Language Models" (OSDI 2024), with milliseconds of
 * GPU time for its tokens. Each user has a counter of the service rendered to
 * it, divided by its share; the least served goes next. Anyone who comes back from
 * idle is lifted to the least served of those who wait, so that nobody saves up.
 *
 * The paper counts while it serves. Here the length of a request is known at its
 * end only, so until then one is charged as much as the longest of late. From
 * when two users begin to wait for one model, and as long as both do, the service
 * they get, divided by their shares, differs by at most two of the longest
 * requests for each slot of the model (each divided by the smaller share); where
 * both began together, by one. A guess that was too low adds no more than is
 * served between two calls of `grow`.
 */

/** What a request is taken to need before one has ended. */
const firstGuessMs = 1000;
/** How fast the longest request is forgotten: by so much with each that ends. */
const forget = 0.98;
/** How much the request that ended last counts for what is usual. */
const newest = 0.2;
const leastSweep = 64;
/** With so many accounts nobody is remembered for what others have rendered. */
const maxHeard = 10_000;

/** One user's counter. */
export class Account implements Heaped {
	heapIndex = -1;
	readonly user: string;
	/** Where it is in an order by counters, while it waits; told when its own has changed. */
	standings: Set<{ moved(): void }> | undefined;
	/** Two of it get twice the service. */
	share = 1;
	/** Service that has been rendered and is over, in milliseconds divided by the share. */
	settledMs = 0;
	/** What is charged for that which runs, in the same. */
	pendingMs = 0;
	/** Requests that wait, and that run. */
	waiting = 0;
	running = 0;
	/** When it was last served or came, as a number that grows. */
	lastTurn = 0;
	/** How long its requests take of late; 0 until one has ended. */
	usualMs = 0;

	constructor(user: string) {
		this.user = user;
	}

	get counter(): number {
		return this.settledMs + this.pendingMs;
	}

	get isActive(): boolean {
		return this.waiting + this.running > 0;
	}

	changed(): void {
		if (this.standings === undefined) return;
		for (const standing of this.standings) standing.moved();
	}
}

/** What a running request is charged. */
export interface Charge {
	readonly account: Account;
	/** Divided by the share as it was at the start. */
	ms: number;
	readonly share: number;
}

/** The counters of all users who compete with one another. */
export class Fairness {
	readonly #accounts = new Map<string, Account>();
	/** Those who wait. */
	readonly #waiting = new Heap<Account>((a, b) => a.settledMs < b.settledMs);
	/** What has been rendered to the least served of those who wait, or waited last. */
	#floorMs = 0;
	#active = 0;
	/** Requests that run. */
	#running = 0;
	#turns = 0;
	#expectedMs = firstGuessMs;
	/** With so many accounts those that say nothing are looked for. */
	#sweepAt = leastSweep;

	/** Users that are remembered. */
	get size(): number {
		return this.#accounts.size;
	}

	[Symbol.iterator](): Iterator<Account> {
		return this.#accounts.values();
	}

	/**
	 * Other gates have served a user, by so much divided by its share. It counts
	 * while a user waits whom that could serve, itself or another.
	 */
	hear(user: string, ms: number): void {
		if (this.#active === 0) return;
		let account = this.#accounts.get(user);
		if (account === undefined) {
			if (this.#accounts.size >= maxHeard) return;
			account = new Account(user);
			this.#accounts.set(user, account);
		}
		if (!account.isActive) {
			this.#raiseFloor();
			account.settledMs = Math.max(account.settledMs, this.#floorMs);
		}
		account.settledMs += ms;
		this.#waiting.moved(account);
		account.changed();
	}

	/** A request of this user's begins to wait. */
	enter(user: string, share: number): Account {
		const account = this.#arrive(user, share);
		account.waiting += 1;
		this.#waiting.add(account);
		return account;
	}

	/** A request of this user's runs at once, where nobody waits: as `enter` and `start` would have it. */
	pass(user: string, share: number): Charge {
		const account = this.#arrive(user, share);
		// Nobody waits at this host, but somebody may at another.
		const leastMs = this.#waiting.first?.settledMs ?? account.settledMs;
		this.#raiseFloor(Math.min(leastMs, account.settledMs));
		return this.#charge(account);
	}

	#arrive(user: string, share: number): Account {
		let account = this.#accounts.get(user);
		if (account === undefined) {
			account = new Account(user);
			this.#accounts.set(user, account);
		}
		account.share = share;
		if (!account.isActive) {
			this.#raiseFloor();
			account.settledMs = Math.max(account.settledMs, this.#floorMs);
			// Of equals, those that are here already go first.
			this.#turns += 1;
			account.lastTurn = this.#turns;
			this.#active += 1;
		} else if (account.waiting === 0) this.#forgetOld(account);
		return account;
	}

	/**
	 * Who has something at work all the while, and does not wait for more, saves
	 * nothing up by that: it is owed what may run just now, and no more.
	 */
	#forgetOld(account: Account): void {
		this.#raiseFloor();
		const owedMs = (this.#running * this.#expectedMs) / account.share;
		account.settledMs = Math.max(account.settledMs, this.#floorMs - owedMs);
	}

	/** A request that waited is gone. */
	leave(account: Account): void {
		this.#raiseFloor();
		this.#waitsLess(account);
		this.#rest(account);
	}

	/** A request that waited begins to run. */
	start(account: Account): Charge {
		this.#raiseFloor();
		this.#waitsLess(account);
		return this.#charge(account);
	}

	#charge(account: Account): Charge {
		account.running += 1;
		this.#running += 1;
		this.#turns += 1;
		account.lastTurn = this.#turns;
		const { share } = account;
		const charge = { account, ms: this.#expectedMs / share, share };
		account.pendingMs += charge.ms;
		account.changed();
		return charge;
	}

	/** It has run for so long already, which may be longer than was expected. */
	grow(charge: Charge, serviceMs: number): void {
		const more = serviceMs / charge.share - charge.ms;
		if (more <= 0) return;
		charge.ms += more;
		charge.account.pendingMs += more;
		charge.account.changed();
	}

	/** It has ended; what it was charged is put right. */
	finish(charge: Charge, serviceMs: number): void {
		const { account } = charge;
		account.running -= 1;
		this.#running -= 1;
		// Sums of fractions do not come to zero by themselves.
		account.pendingMs =
			account.running === 0 ? 0 : Math.max(0, account.pendingMs - charge.ms);
		account.settledMs += serviceMs / charge.share;
		account.usualMs +=
			(serviceMs - account.usualMs) * (account.usualMs === 0 ? 1 : newest);
		this.#waiting.moved(account);
		account.changed();
		this.#expectedMs = Math.max(serviceMs, this.#expectedMs * forget, 1);
		this.#rest(account);
	}

	#raiseFloor(leastMs = this.#waiting.first?.settledMs ?? 0): void {
		this.#floorMs = Math.max(this.#floorMs, leastMs);
	}

	#waitsLess(account: Account): void {
		account.waiting -= 1;
		if (account.waiting === 0) this.#waiting.delete(account);
	}

	/** An account is kept only while it says more than the floor does. */
	#rest(account: Account): void {
		if (account.isActive) return;
		this.#active -= 1;
		if (this.#active === 0) {
			// Nobody waits whom a debt could serve.
			this.#floorMs = Math.max(this.#floorMs, account.settledMs);
			// By itself it says nothing, and often comes again.
			if (this.#accounts.size > 1) this.#accounts.clear();
			return;
		}
		if (account.settledMs <= this.#floorMs) this.#accounts.delete(account.user);
		else if (this.#accounts.size > this.#sweepAt) this.#sweep();
	}

	#sweep(): void {
		for (const [user, account] of this.#accounts)
			if (!account.isActive && account.settledMs <= this.#floorMs)
				this.#accounts.delete(user);
		this.#sweepAt = Math.max(leastSweep, 2 * this.#accounts.size);
	}
}

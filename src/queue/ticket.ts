import type { Priority } from "../priority.ts";
import type { Place } from "./model.ts";

/** Why a request does not get a turn. */
export type NoTurn =
	/** Too many wait, of its user's or in all. */
	| { readonly kind: "user_full" | "full"; readonly retryAfterS: number }
	| { readonly kind: "load_failed"; readonly status: number }
	| { readonly kind: "unreachable" };

/** Who waits. */
export interface Waiter {
	readonly user: string;
	readonly share: number;
	readonly priority: Priority;
	/** As the body names it, empty if it names none; `undefined` where that cannot be read for sure. */
	readonly model: string | undefined;
	readonly isStream: boolean;
	/** Pieces of its reply that have come. */
	readonly pieces: number;
	/** Whether its reply, which has come to its end, has tokens. */
	readonly hasTokens: boolean;
	/** Its turn has come, after so many milliseconds. */
	go(waitedMs: number): void;
	/** It gets none. */
	refused(why: NoTurn, waitedMs: number): void;
	/** It is here no more, without a turn: its client has left, it was cut, or it goes elsewhere. */
	left(waitedMs: number): void;
	/** It has waited for so long that it may be told; again and again. */
	stillWaits(ahead: number): void;
	/** The load that was kept for the others has had its time. */
	dropLoad(): void;
}

/** The queue that a ticket is of. */
interface Owner {
	modelOf(ticket: Ticket): string | undefined;
	answered(ticket: Ticket, status: number, isStream: boolean): void;
	end(ticket: Ticket, fault: "unreachable" | "died" | undefined): void;
	abandon(ticket: Ticket): boolean;
}

/** A request's place in the queue, from its arrival to its end. */
export class Ticket {
	readonly waiter: Waiter;
	readonly arrivedMs: number;
	state: "waiting" | "running" | "over" = "waiting";
	/** `undefined` while its model is looked up, and for what takes no turn. */
	place: Place | undefined;
	told = 0;
	/** Ollama has answered it with an error before its model was loaded. */
	wasRefused = false;
	/** Until when the load is kept that its client has left. */
	keptUntilMs = Number.POSITIVE_INFINITY;
	readonly #queue: Owner;

	constructor(queue: Owner, waiter: Waiter, arrivedMs: number) {
		this.#queue = queue;
		this.waiter = waiter;
		this.arrivedMs = arrivedMs;
	}

	/** The model that it is for, as it was asked for last; `undefined` for what takes no turn. */
	get model(): string | undefined {
		return this.#queue.modelOf(this);
	}

	/** Ollama has begun to answer it. */
	answered(status: number, isStream: boolean): void {
		this.#queue.answered(this, status, isStream);
	}

	/** Its client does not take what has come, so Ollama may be done with it long before it ends. */
	stalled(): void {
		if (this.place !== undefined) this.place.hasStalled = true;
	}

	/**
	 * It has ended, or its client has left, in whatever state it is.
	 *
	 * @param fault what became of its connection to Ollama, if that failed
	 */
	end(fault?: "unreachable" | "died"): void {
		this.#queue.end(this, fault);
	}

	/**
	 * Its client has left. Returns whether it makes Ollama load a model and is to be
	 * kept until that is done, at most until `dropLoad`; else it has ended.
	 */
	abandon(): boolean {
		return this.#queue.abandon(this);
	}
}

/** How many of each user's wait. */
export class WaitersByUser {
	readonly #tickets = new Map<string, Set<Ticket>>();
	/** Of all users. */
	size = 0;

	get users(): number {
		return this.#tickets.size;
	}

	of(user: string): number {
		return this.#tickets.get(user)?.size ?? 0;
	}

	add(ticket: Ticket): void {
		const { user } = ticket.waiter;
		const own = this.#tickets.get(user);
		if (own?.has(ticket) === true) return;
		this.size += 1;
		if (own === undefined) this.#tickets.set(user, new Set([ticket]));
		else own.add(ticket);
	}

	delete(ticket: Ticket): void {
		const { user } = ticket.waiter;
		const own = this.#tickets.get(user);
		if (own?.delete(ticket) === true) this.size -= 1;
		if (own?.size === 0) this.#tickets.delete(user);
	}
}

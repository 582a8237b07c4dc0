import type { Ticket } from "./ticket.ts";
import type { Turns } from "./turns.ts";

/** A reply in one piece that came sooner was none of the GPU's. */
const leastWorkMs = 20;

/** Whether the GPU may work for a request whose reply's head has come: what has no prompt is answered at once, in one piece. */
export function mayBeWork(
	{ waiter, place }: Ticket,
	isStream: boolean,
	nowMs: number,
): boolean {
	if (isStream) return true;
	return !waiter.isStream && nowMs - (place?.startedMs ?? 0) >= leastWorkMs;
}

/**
 * Watches those that were sent beyond the known slots and are answered, at most
 * one for each model. The GPU has worked for one whose reply still goes on from
 * one look to the next, a quarter of a second later, or has had tokens by its
 * end; not for what Ollama says at once, and without a slot.
 */
export class TryWatch {
	/** With how many pieces had come of each at the last look. */
	readonly #pieces = new Map<Ticket, number>();

	/** It has begun to be answered. */
	begin(ticket: Ticket): void {
		if (ticket.place?.rivals !== undefined)
			this.#pieces.set(ticket, Number.POSITIVE_INFINITY);
	}

	look(turns: Turns, nowMs: number): void {
		for (const [ticket, before] of this.#pieces) {
			const { place, waiter } = ticket;
			const { pieces } = waiter;
			if (place?.rivals !== undefined && pieces > before)
				turns.worked(place, nowMs);
			if (place?.rivals === undefined) this.#pieces.delete(ticket);
			else this.#pieces.set(ticket, pieces);
		}
	}

	/** It is about to end. */
	end(ticket: Ticket, turns: Turns, nowMs: number): void {
		const { place, waiter } = ticket;
		if (!this.#pieces.delete(ticket) || place === undefined) return;
		if (waiter.hasTokens) turns.worked(place, nowMs);
	}
}

import { aheadOf } from "./inOrder.ts";
import type { Ticket } from "./ticket.ts";

/** How long the waiting are told at a time how many are ahead of them; the others are told the next time. */
const tellingMs = 2;

/** Tells each request that has waited for another `announceAfterMs` how many are ahead of it. */
export function tellAhead(
	tickets: Iterable<Ticket>,
	nowMs: number,
	announceAfterMs: number,
): void {
	for (const ticket of tickets) {
		if (ticket.state !== "waiting" || ticket.place === undefined) continue;
		const times = Math.floor((nowMs - ticket.arrivedMs) / announceAfterMs);
		if (times <= ticket.told) continue;
		ticket.told = times;
		ticket.waiter.stillWaits(aheadOf(ticket.place));
		if (performance.now() - nowMs > tellingMs) return;
	}
}

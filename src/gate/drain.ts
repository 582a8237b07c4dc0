import { setTimeout as delay } from "node:timers/promises";
import { shuttingDown } from "./admission.ts";
import type { GateState } from "./state.ts";

/**
 * How long a connection without a reply under way is held open once the gate
 * stops, in milliseconds: a request may be on its way on it, and to close it
 * then would lose that one. Longer than a round trip through a relay.
 */
export const partingMs = 1_000;
const tickMs = 20;

/**
 * Waits for what runs, and for what was on its way on open connections; cuts
 * what is left after the drain timeout. Each reply that begins meanwhile, and behind
 * which no request is carried out, closes its connection. What comes in the second half of the drain timeout is refused.
 *
 * @param holdMs how long a connection without a reply under way is held open
 * @param cutGraceMs how long what is cut may take to tell its client
 */
export async function drainRelays(
	state: GateState,
	holdMs: number,
	cutGraceMs: number,
): Promise<void> {
	const { relays, settings } = state;
	for (const relay of relays) relay.exchange.parting = true;
	const startedMs = performance.now();
	const { drainTimeoutMs } = settings;
	const half = drainTimeoutMs / 2;
	for (;;) {
		const nowMs = performance.now();
		const agedMs = nowMs - startedMs;
		state.refusesNew = holdMs === 0 || agedMs >= half;
		// It would begin only when another has ended, and be cut in its middle.
		for (const relay of relays)
			if (relay.errand.isWaiting) relay.cut(shuttingDown, cutGraceMs);
		const held = state.connections.part(Math.min(holdMs, half), nowMs);
		if ((relays.size === 0 && held === 0) || agedMs >= drainTimeoutMs) break;
		await delay(tickMs);
	}
	// Each leaves the set as it is cut, with its error still on its way.
	const cutCount = relays.size;
	for (const relay of relays) relay.cut(shuttingDown, cutGraceMs);
	await delay(cutCount > 0 ? cutGraceMs : 0);
}

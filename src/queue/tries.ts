import type { Place } from "./model.ts";
import type { Tried } from "./slots.ts";

/**
 * What is learnt of a model's slots from what happens to its requests. A try is
 * one that was sent beyond the known slots: it fits once the GPU is known to
 * work for it and its first byte came while all that ran before it still ran. Its
 * head alone says nothing, for Ollama answers what has no prompt at once.
 */

/** A request is about to run: notes what its first byte is to be held against. */
export function begins(place: Place): void {
	const { running, slots, ends } = place.model;
	place.endsBefore = ends;
	place.fillsSlots = running.size >= slots.known - 1;
	if (place.isLoader || running.size < slots.known) return;
	place.rivals = new Set(running);
	place.wasTry = true;
	slots.begin();
}

/** The first byte of a request for which the GPU may work has come. */
export function answered(place: Place, nowMs: number): void {
	const { rivals } = place;
	if (!place.wasTry && place.asked.isStream) noteFirstByte(place, nowMs);
	// One whose client does not read may have ended in Ollama long ago.
	for (const rival of rivals ?? [])
		if (rival.state !== "running" || rival.hasStalled)
			return void endTry(place, "unclear", nowMs);
}

/** The GPU has worked for a request since its first byte. */
export function worked(place: Place, nowMs: number): void {
	if (place.rivals === undefined || !place.hasFirstByte) return;
	endTry(place, place.hasStalled ? "unclear" : "fits", nowMs);
}

/** A request has ended: those that were sent beyond the slots beside it may have waited for that. */
export function ends(place: Place, nowMs: number): void {
	const { model } = place;
	model.ends += 1;
	model.endedMs = nowMs;
	// To walk through all that runs has its price.
	for (const other of model.slots.isTrying ? model.running : []) {
		if (other.rivals?.has(place) !== true || other.hasFirstByte) continue;
		const isLate = model.slots.isLate(nowMs - other.startedMs);
		const hasWaited = other.asked.isStream && isLate && !place.hasStalled;
		// Until now it may have waited, in Ollama.
		if (hasWaited) other.servedFromMs = nowMs;
		endTry(other, hasWaited ? "waited" : "unclear", nowMs);
	}
	endTry(place, "unclear", nowMs);
}

export function endTry(place: Place, tried: Tried, nowMs: number): void {
	if (place.rivals === undefined) return;
	place.rivals = undefined;
	place.model.slots.end(tried, nowMs);
}

/**
 * A request within the known slots whose first byte comes far too late, and right
 * behind another's end, has waited for that: Ollama may have fewer than it had.
 */
function noteFirstByte(place: Place, nowMs: number): void {
	const { model, startedMs, endsBefore, fillsSlots } = place;
	const { slots } = model;
	const afterMs = nowMs - startedMs;
	if (model.ends === endsBefore || !slots.isLate(afterMs)) {
		slots.answered(afterMs);
		if (fillsSlots) slots.sufficed();
		return;
	}
	// It may have waited, so how late it is says nothing of first bytes.
	const behindMs = nowMs - model.endedMs;
	if (slots.isLate(behindMs)) slots.answered(behindMs);
	else if (fillsSlots && slots.isFarTooLate(afterMs)) {
		slots.lacked(nowMs);
		return;
	}
	if (fillsSlots) slots.sufficed();
}

import { type Priority, priorities } from "../priority.ts";
import { isBefore, type Line, type Model, type Place } from "./model.ts";

/** How long a user of a class can be passed over. */
export type MaxWaits = Readonly<Record<Priority, number>>;

/** A request that could be next, and what that depends on. */
export interface Candidate {
	readonly place: Place;
	/** 0 for one whose user has been passed over for too long, else its class from 1 on. */
	readonly rank: number;
	/** When its user will have been passed over for too long. */
	readonly dueMs: number;
}

/** Which of a model's requests goes first. */
export function bestOf(
	model: Model,
	maxWaitMs: MaxWaits,
	nowMs: number,
): Candidate | undefined {
	let best: Candidate | undefined;
	for (const [index, priority] of priorities.entries()) {
		const lane = model.lanes[index];
		const first = lane?.lines.first;
		if (lane === undefined || first === undefined) continue;
		const maxMs = maxWaitMs[priority];
		const [longest] = lane.passedOver;
		const isDue = longest !== undefined && nowMs >= longest.sinceMs + maxMs;
		if (!isDue && best !== undefined) continue;
		const line = isDue ? longest : first;
		const found = candidateOf(line, isDue ? 0 : index + 1, maxMs);
		if (found !== undefined) best = better(best, found);
	}
	return best;
}

function candidateOf(
	{ places, sinceMs }: Line,
	rank: number,
	maxMs: number,
): Candidate | undefined {
	const [place] = places;
	return place && { place, rank, dueMs: sinceMs + maxMs };
}

export function better(a: Candidate | undefined, b: Candidate): Candidate {
	return a === undefined || goesBefore(b, a) ? b : a;
}

/** Whether one request goes before another, of whatever models. */
export function goesBefore(a: Candidate, b: Candidate): boolean {
	if (a.rank !== b.rank) return a.rank < b.rank;
	if (a.rank === 0) return a.dueMs < b.dueMs;
	const [mine, other] = [a.place.line, b.place.line];
	return (
		mine !== undefined &&
		other !== undefined &&
		isBefore(mine.account, other.account)
	);
}

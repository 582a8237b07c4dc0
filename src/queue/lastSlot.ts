import { priorities } from "../priority.ts";
import type { Place } from "./model.ts";

const batchRank = priorities.indexOf("batch");
/** A model with fewer slots has none to spare; of very many one is always about to fall free. */
const leastSlots = 4;
const mostSlots = 64;
/** How long somebody counts as being about after the last request. */
const aboutMs = 60_000;
const never = Number.NEGATIVE_INFINITY;

/** Who has been about of late, in one class: who came last, and when anybody else did. */
class Visits {
	#user: string | undefined;
	#atMs = never;
	#otherAtMs = never;

	note(user: string, nowMs: number): void {
		if (user !== this.#user) {
			this.#otherAtMs = this.#atMs;
			this.#user = user;
		}
		this.#atMs = nowMs;
	}

	/** When anybody came or was served last but this user. */
	ofOthers(user: string): number {
		return user === this.#user ? this.#otherAtMs : this.#atMs;
	}

	get latestMs(): number {
		return this.#atMs;
	}
}

/** Who has been about, by class, the highest first. */
export class Visitors {
	readonly #visits = priorities.map(() => new Visits());

	/** A request begins to wait or to run, or has ended. */
	note({ rank, asked }: Place, nowMs: number): void {
		this.#visits[rank]?.note(asked.user, nowMs);
	}

	/** Until when another user of this class or a higher one is about. */
	othersUntilMs({ rank, asked }: Place): number {
		return this.#latest(rank + 1, (visits) => visits.ofOthers(asked.user));
	}

	/** Until when anybody of a higher class is about. */
	higherUntilMs({ rank }: Place): number {
		return this.#latest(rank, ({ latestMs }) => latestMs);
	}

	#latest(classes: number, atMs: (visits: Visits) => number): number {
		return Math.max(...this.#visits.slice(0, classes).map(atMs)) + aboutMs;
	}
}

/**
 * From when on a request may have the last slot of its model that is free; long
 * past where it may have it anyway.
 *
 * Requests that began together, and are of one length, end together, and whoever
 * comes meanwhile waits for all of that time: with four slots as with one. So a
 * user who has all the others takes the last one only when another is about to
 * fall free: as near to its end as one always is where the others end one after
 * the other. From then on they do, and hardly anything is left free any more. So does the class batch, whoever sent it. Both only while there
 * is somebody for whom to be quick.
 */
export function mayHaveLastFromMs(place: Place): number {
	const { model, rank, asked } = place;
	const { running, visitors } = model;
	const slots = model.slots.known;
	if (slots < leastSlots || slots > mostSlots || running.size < slots - 1)
		return never;
	let nextMs = Number.POSITIVE_INFINITY;
	let own = 0;
	let batch = 0;
	for (const one of running) {
		const usualMs = one.charge?.account.usualMs ?? 0;
		nextMs = Math.min(nextMs, one.startedMs + (1 - 1 / (slots - 1)) * usualMs);
		if (one.asked.user === asked.user) own += 1;
		if (one.rank === batchRank) batch += 1;
	}
	const hasAllOthers = own >= slots - 1 && !othersWait(place);
	const isBatch = rank === batchRank && batch >= slots - 1;
	const untilMs = Math.max(
		hasAllOthers ? visitors.othersUntilMs(place) : never,
		isBatch ? visitors.higherUntilMs(place) : never,
	);
	return Math.min(untilMs, nextMs);
}

/** Whether another user waits for the same, in the same class. */
function othersWait({ model, rank, asked }: Place): boolean {
	const byUser = model.lanes[rank]?.byUser;
	if (byUser === undefined) return false;
	return byUser.size > (byUser.has(asked.user) ? 1 : 0);
}

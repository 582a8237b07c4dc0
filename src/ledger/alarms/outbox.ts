import { type Alarm, maxTextLength, oppositeOf, topicOf } from "./alarm.ts";

/** What a ledger has to see to yet, of each topic (`topicOf`); more are dropped, and counted. */
const maxWaiting = 10;
/** The same again within so long is not new. */
const quietMs = 3_600_000;
/** Nor is what was given up, within so long: who causes it would have a receiver that says no asked at will. */
const givenUpQuietMs = 60_000;
/** So many are known not to be news; beyond that the oldest is. */
const maxKnown = 256;

/** An alarm on its way, with its number in this run of the gate. */
export interface Numbered extends Alarm {
	readonly number: number;
}

/** One topic's. */
interface Line {
	waiting: number;
	/** Dropped, and nobody was told how many. */
	untold: number;
	/** The number of the alarm that tells how many; `undefined` while none waits. */
	sum: number | undefined;
}

/**
 * A gate's alarms that no ledger has seen to yet. Bounded, whatever is raised: by
 * topic, so that what a stranger can raise at will takes no other's place. What is
 * no longer so, as its opposite has come since, is not kept.
 */
export class AlarmOutbox {
	readonly #waiting = new Map<number, Numbered>();
	/** From when on each, by `idOf`, is new again. */
	readonly #newAtMs = new Map<string, number>();
	readonly #lines = new Map<string, Line>();
	#numbers = 0;
	#dropped = 0;

	/** Those that no ledger has seen to, the oldest first. */
	get waiting(): Iterable<Numbered> {
		return this.#waiting.values();
	}

	/** How many there was no room for. */
	get dropped(): number {
		return this.#dropped;
	}

	/**
	 * @param nowMs any clock that only moves forward
	 * @returns it with its number, or `undefined` if it is not new, or room is lacking
	 */
	add(alarm: Alarm, nowMs: number): Numbered | undefined {
		const id = idOf(alarm);
		if (nowMs < (this.#newAtMs.get(id) ?? nowMs)) return undefined;
		this.#forget(oppositeOf(alarm));
		const line = this.#lineOf(topicOf(alarm));
		if (line.waiting >= maxWaiting) {
			this.#dropped += 1;
			line.untold += 1;
			return undefined;
		}
		this.#newAtMs.delete(id);
		for (const oldest of this.#newAtMs.keys()) {
			if (this.#newAtMs.size < maxKnown) break;
			this.#newAtMs.delete(oldest);
		}
		this.#newAtMs.set(id, nowMs + quietMs);
		return this.#put(line, alarm);
	}

	/**
	 * A ledger has seen to it: it was sent, or nobody could be reached.
	 *
	 * @param isGivenUp nobody could, so that the same is news again
	 * @returns an alarm that tells how many were dropped, if any were, now that there is room for it
	 */
	done(number: number, isGivenUp = false): Numbered | undefined {
		const alarm = this.#waiting.get(number);
		if (alarm === undefined) return undefined;
		const topic = topicOf(alarm);
		const line = this.#lineOf(topic);
		this.#waiting.delete(number);
		line.waiting -= 1;
		if (line.sum === number) line.sum = undefined;
		const id = idOf(alarm);
		const newAtMs = this.#newAtMs.get(id);
		if (isGivenUp && newAtMs !== undefined)
			this.#newAtMs.set(id, newAtMs - quietMs + givenUpQuietMs);
		if (line.untold === 0 || line.sum !== undefined) {
			// Of hosts that are gone nothing stays.
			if (line.waiting === 0) this.#lines.delete(topic);
			return undefined;
		}
		const text = `and ${line.untold} more, for which there was no room; the gate's log has them`;
		line.untold = 0;
		const sum = this.#put(line, { ...alarm, text });
		line.sum = sum.number;
		return sum;
	}

	/** Drops what waits of a topic. */
	#forget(topic: string | undefined): void {
		if (topic === undefined || !this.#lines.delete(topic)) return;
		for (const [number, alarm] of this.#waiting)
			if (topicOf(alarm) === topic) this.#waiting.delete(number);
	}

	#lineOf(topic: string): Line {
		let line = this.#lines.get(topic);
		if (line === undefined) {
			line = { waiting: 0, untold: 0, sum: undefined };
			this.#lines.set(topic, line);
		}
		return line;
	}

	#put(line: Line, alarm: Alarm): Numbered {
		this.#numbers += 1;
		const number = this.#numbers;
		const text = alarm.text.slice(0, maxTextLength);
		const numbered = { ...alarm, text, number };
		this.#waiting.set(number, numbered);
		line.waiting += 1;
		return numbered;
	}
}

/** Names what it says, as far as it is sent. */
function idOf(alarm: Alarm): string {
	return `${topicOf(alarm)} ${alarm.text.slice(0, maxTextLength)}`;
}

import { type Alarm, maxTextLength } from "./alarm.ts";

/** What a ledger has to take yet; more are dropped, and counted. */
const maxWaiting = 32;
/** The same again within so long is not new. */
const quietMs = 3_600_000;
/** So many are known not to be news; beyond that the oldest is. */
const maxKnown = 256;

/** An alarm on its way, with its number in this run of the gate. */
export interface Numbered extends Alarm {
	readonly number: number;
}

/** A gate's alarms that no ledger has seen to yet. Bounded, whatever is raised. */
export class AlarmOutbox {
	readonly #waiting = new Map<number, Numbered>();
	readonly #toldAtMs = new Map<string, number>();
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
	 * @returns it with its number, or `undefined` if it is not new, or there is no room
	 */
	add({ subject, text }: Alarm, nowMs: number): Numbered | undefined {
		const id = `${subject} ${text}`;
		const toldAtMs = this.#toldAtMs.get(id);
		if (toldAtMs !== undefined && nowMs - toldAtMs < quietMs) return undefined;
		if (this.#waiting.size >= maxWaiting) {
			this.#dropped += 1;
			return undefined;
		}
		this.#toldAtMs.delete(id);
		for (const oldest of this.#toldAtMs.keys()) {
			if (this.#toldAtMs.size < maxKnown) break;
			this.#toldAtMs.delete(oldest);
		}
		this.#toldAtMs.set(id, nowMs);
		this.#numbers += 1;
		const numbered = {
			subject,
			text: text.slice(0, maxTextLength),
			number: this.#numbers,
		};
		this.#waiting.set(numbered.number, numbered);
		return numbered;
	}

	/** A ledger has seen to it: it was sent, or nobody could be reached. */
	done(number: number): void {
		this.#waiting.delete(number);
	}
}

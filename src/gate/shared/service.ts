import { type Priority, priorities } from "../../priority.ts";
import type { ServiceElsewhere } from "../../queue/service.ts";
import type { Names } from "../../valkey/names.ts";

/** Users whose service goes into one entry; the rest waits for the next. */
const maxEntry = 500;
/** Users whose service waits; of more nothing is told. */
const maxWaiting = 10_000;
/** More than that in one entry cannot be the service of one second. */
const maxServiceMs = 3_600_000;

/**
 * What users were served, told to the other gates once a second and heard from
 * them, in the background. Each entry is numbered: one that is told twice, as
 * nobody knew whether it had arrived, is heard once.
 */
export class SharedService implements ServiceElsewhere {
	hear: ((priority: Priority, name: string, ms: number) => void) | undefined;
	readonly #names: Names;
	/** By class and name. */
	#waiting = new Map<string, number>();
	#entry = "";
	#number = 0;
	/** The last entry of each gate that was heard. */
	#heard = new Map<string, number>();

	constructor(names: Names) {
		this.#names = names;
	}

	nameOf(user: string): string {
		return this.#names.hash(user);
	}

	served(priority: Priority, name: string, ms: number): void {
		const rounded = Math.round(ms);
		if (rounded <= 0) return;
		const user = `${priority} ${name}`;
		const sum = this.#waiting.get(user);
		if (sum === undefined && this.#waiting.size >= maxWaiting) return;
		this.#waiting.set(user, (sum ?? 0) + rounded);
	}

	/** What is to be told: the last entry, until it has arrived. */
	entry(): { text: string; number: number } {
		if (this.#entry === "" && this.#waiting.size > 0) {
			const some = [...this.#waiting].slice(0, maxEntry);
			for (const [user] of some) this.#waiting.delete(user);
			this.#entry = some.map(([user, ms]) => `${user} ${ms}`).join("\n");
			this.#number += 1;
		}
		return { text: this.#entry, number: this.#number };
	}

	/**
	 * The last entry has arrived, and these of others have come.
	 *
	 * @param entries gate, number and text, in turn
	 */
	told(entries: readonly unknown[]): void {
		this.#entry = "";
		for (let at = 0; at + 2 < entries.length; at += 3) {
			const gate = String(entries[at]);
			const number = Number(entries[at + 1]);
			if (!(number > (this.#heard.get(gate) ?? 0))) continue;
			// Gates that have ended are forgotten with all others, seldom.
			if (this.#heard.size >= maxWaiting) this.#heard.clear();
			this.#heard.set(gate, number);
			for (const line of String(entries[at + 2]).split("\n")) {
				const [priority = "", name = "", ms] = line.split(" ");
				const served = Math.min(Number(ms), maxServiceMs);
				if (isPriority(priority) && served > 0)
					this.hear?.(priority, name, served);
			}
		}
	}

	/** What was served while nobody could be told is over. */
	back(): void {
		this.#waiting.clear();
		this.#entry = "";
	}
}

function isPriority(text: string): text is Priority {
	return (priorities as readonly string[]).includes(text);
}

import type { NoTurn } from "./ticket.ts";

/** An Ollama that restarts is back after so long: its unit waits 3 s. */
const restartMs = 5_000;
const pollMs = 200;

/** The queue of an Ollama that may be away. */
interface Waiting {
	/** Whether anything waits. */
	isWanted(): boolean;
	/** Asks the Ollama. */
	isUp(): Promise<boolean>;
	/** It turns out to be away, for however long. */
	restarts(): void;
	/** It is away for longer than a restart takes. */
	refuseAll(why: NoTurn): void;
	/** What is known of it has changed. */
	look(): void;
}

/** Whether an Ollama is away: as far as its queue has found out, or as others say. */
export class Absence {
	/** A connection has failed, and it is asked whether it is away. */
	isAsked = false;
	/** It has not answered the queue for so long that it counts as away. */
	#isUnheard = false;
	/** Since when others say that it is down; they alone say when it is back. */
	#downSinceMs: number | undefined;
	readonly #queue: Waiting;

	constructor(queue: Waiting) {
		this.#queue = queue;
	}

	/** What is sent there would wait in vain, or is not for what is there now. */
	get isSilent(): boolean {
		return this.#isUnheard || this.#downSinceMs !== undefined;
	}

	/** As far as is known. */
	get isThere(): boolean {
		return !this.isAsked && !this.isSilent;
	}

	/** Whoever is sent there hears at once if it is away; where it says nothing, nobody would. */
	get isTold(): boolean {
		return this.isAsked && !this.isSilent;
	}

	/** It has answered the queue. */
	answered(): void {
		this.#isUnheard = false;
	}

	/** It has not answered the queue for long, nor anybody else. */
	async doubted(): Promise<void> {
		if (this.isAsked) return;
		this.#isUnheard = !(await this.#queue.isUp());
		if (this.#isUnheard) void this.lost();
		else this.#queue.look();
	}

	/** Others have found that it is down. */
	begins(): void {
		this.#downSinceMs ??= performance.now();
		void this.lost();
	}

	/** Others have found that it is back. Returns since when they said it was down. */
	ends(): number | undefined {
		const sinceMs = this.#downSinceMs;
		this.#downSinceMs = undefined;
		this.answered();
		return sinceMs;
	}

	/** It may be away: those that wait hear it, unless it is back in five seconds. */
	async lost(): Promise<void> {
		if (this.isAsked || !this.#queue.isWanted()) return;
		if (await this.#lasts()) this.#queue.refuseAll({ kind: "unreachable" });
		this.#queue.look();
	}

	/** Whether it is away for longer than a restart takes. */
	async #lasts(): Promise<boolean> {
		this.isAsked = true;
		let endMs: number | undefined;
		// What answers the queue may be another program: where others judge it, they know better.
		while (!(await this.#queue.isUp()) || this.#downSinceMs !== undefined) {
			if (endMs === undefined) {
				this.#queue.restarts();
				endMs = performance.now() + restartMs;
			} else if (performance.now() >= endMs) {
				this.isAsked = false;
				return true;
			}
			await new Promise((resolve) => setTimeout(resolve, pollMs));
		}
		this.isAsked = false;
		this.answered();
		return false;
	}
}

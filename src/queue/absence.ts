/** An Ollama that restarts is back after so long: its unit waits 3 s. */
const restartMs = 5_000;
const pollMs = 200;

/** Whether an Ollama is away, as far as its queue has found out. */
export class Absence {
	/** A connection has failed, and it is asked whether it is away. */
	isAsked = false;
	/** Since when it is known to say nothing; what is sent there would wait in vain. */
	#silentSinceMs: number | undefined;
	readonly #isUp: () => Promise<boolean>;
	readonly #restarts: () => void;

	/**
	 * @param isUp asks it
	 * @param restarts called when it turns out to be away, for however long
	 */
	constructor(isUp: () => Promise<boolean>, restarts: () => void) {
		this.#isUp = isUp;
		this.#restarts = restarts;
	}

	get isSilent(): boolean {
		return this.#silentSinceMs !== undefined;
	}

	/** As far as is known. */
	get isThere(): boolean {
		return !this.isAsked && !this.isSilent;
	}

	/** Whoever is sent there hears at once if it is away; where it says nothing, nobody would. */
	get isTold(): boolean {
		return this.isAsked && !this.isSilent;
	}

	/** It says nothing, and is not asked to be sure of that. */
	begins(): void {
		this.#silentSinceMs ??= performance.now();
	}

	/** It has said something. Returns since when it was silent, if it was. */
	ends(): number | undefined {
		const sinceMs = this.#silentSinceMs;
		this.#silentSinceMs = undefined;
		return sinceMs;
	}

	/** Whether it is away for longer than a restart takes. */
	async lasts(): Promise<boolean> {
		this.isAsked = true;
		const isBack = await this.#comesBack();
		this.isAsked = false;
		if (isBack) this.ends();
		return !isBack;
	}

	async #comesBack(): Promise<boolean> {
		if (await this.#isUp()) return true;
		this.#restarts();
		const endMs = performance.now() + restartMs;
		while (performance.now() < endMs) {
			await new Promise((resolve) => setTimeout(resolve, pollMs));
			if (await this.#isUp()) return true;
		}
		return false;
	}
}

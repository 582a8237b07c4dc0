/** How long requests must have failed, with none answered between, before Ollama is called down. */
const downAfterMs = 30_000;

/**
 * Whether Ollama answers, as far as requests show: nothing is asked for its sake,
 * so a gate that nobody uses goes on to say what it saw last.
 */
export class UpstreamHealth {
	#failingSinceMs: number | undefined;
	#isTold = false;

	/** Whether the latest request that came to an end there was answered; true before the first. */
	get isUp(): boolean {
		return this.#failingSinceMs === undefined;
	}

	/** Ollama has answered, whatever it said. @returns whether it had been called down */
	answered(): boolean {
		const wasTold = this.#isTold;
		this.#failingSinceMs = undefined;
		this.#isTold = false;
		return wasTold;
	}

	/**
	 * Ollama could not be reached, broke off or was silent for too long.
	 *
	 * @param nowMs any clock that only moves forward
	 * @returns whether it is down by now, once each time that it goes: a restart of
	 *   a few seconds is none
	 */
	failed(nowMs: number): boolean {
		this.#failingSinceMs ??= nowMs;
		if (this.#isTold || nowMs - this.#failingSinceMs < downAfterMs)
			return false;
		this.#isTold = true;
		return true;
	}
}

import type { ModelSource } from "./ollamaModels.ts";
import type { Turns } from "./turns.ts";

/** How often Ollama is asked what is loaded, while a model loads, and while something waits. */
const loadPollMs = 100;
const waitPollMs = 1_000;
/** A load that takes longer takes many times that; and each question to another gate counts against this gate's key there. */
const shortLoadMs = 2_000;
/** After so many answers in a row that did not come, Ollama is taken not to say what is loaded. */
const maxSilences = 3;

/** @param sinceMs when a load began to be wanted; `undefined` if none is */
export function pollEveryMs(
	sinceMs: number | undefined,
	nowMs: number,
): number {
	return sinceMs !== undefined && nowMs - sinceMs < shortLoadMs
		? loadPollMs
		: waitPollMs;
}

/** What Ollama has answered. */
export interface Heard {
	/** The models that are loaded; `undefined` if it did not say. */
	readonly keys: Awaited<ReturnType<ModelSource["loaded"]>>;
	/** False while its silence may only be that of a model being unloaded. */
	readonly isKnown: boolean;
}

/** Asks Ollama what is loaded, one question at a time, and sees to it that the queue is looked at again when it has to be. */
export class LoadedPoll {
	readonly #models: () => ModelSource;
	readonly #hear: (heard: Heard, askedMs: number) => void;
	readonly #look: () => void;
	#isAsking = false;
	#askedAtMs = Number.NEGATIVE_INFINITY;
	/** How often in a row Ollama has not said what is loaded. */
	#silences = 0;
	/** When the first of these questions was asked. */
	#silentSinceMs: number | undefined;
	/** Since when a load has been wanted. */
	#wantedSinceMs: number | undefined;
	#wake: NodeJS.Timeout | undefined;

	/**
	 * @param hear called with each answer, and the time of its question
	 * @param look called when the queue has to be looked at
	 */
	constructor(
		models: () => ModelSource,
		hear: (heard: Heard, askedMs: number) => void,
		look: () => void,
	) {
		this.#models = models;
		this.#hear = hear;
		this.#look = look;
	}

	/** Asks, unless an answer is still to come. */
	ask(): void {
		if (this.#isAsking) return;
		this.#isAsking = true;
		const askedMs = performance.now();
		this.#askedAtMs = askedMs;
		void this.#models()
			.loaded()
			.then((keys) => {
				this.#isAsking = false;
				this.#askedAtMs = performance.now();
				this.#silences = keys === undefined ? this.#silences + 1 : 0;
				if (keys !== undefined) this.#silentSinceMs = undefined;
				else this.#silentSinceMs ??= askedMs;
				// While it unloads a model, Ollama can be silent for a while.
				const isKnown = keys !== undefined || this.#silences > maxSilences;
				this.#hear({ keys, isKnown }, askedMs);
			});
	}

	/**
	 * Asks if it is time to, and sets the timer for the next time.
	 *
	 * @param maySend whether anything could be sent then; if not, something else says when
	 */
	watch({ wantsLoad, waiting, wakeMs }: Turns, maySend: boolean): void {
		this.stop();
		const nowMs = performance.now();
		this.#wantedSinceMs = wantsLoad
			? (this.#wantedSinceMs ?? nowMs)
			: undefined;
		if (!wantsLoad && waiting === 0) return;
		const askAtMs = this.#askedAtMs + pollEveryMs(this.#wantedSinceMs, nowMs);
		if (!this.#isAsking && nowMs >= askAtMs) this.ask();
		const nextMs = Math.min(
			maySend ? wakeMs : Number.POSITIVE_INFINITY,
			this.#isAsking ? Number.POSITIVE_INFINITY : askAtMs,
		);
		if (nextMs === Number.POSITIVE_INFINITY) return;
		this.#wake = setTimeout(this.#look, Math.max(1, nextMs - nowMs));
		this.#wake.unref();
	}

	/** For how long it has not been said what is loaded, while anybody wanted to know. */
	get silentMs(): number {
		return this.#silentSinceMs === undefined
			? 0
			: performance.now() - this.#silentSinceMs;
	}

	/** Nobody wants to know any more. */
	rest(): void {
		this.stop();
		this.#silentSinceMs = undefined;
		this.#wantedSinceMs = undefined;
	}

	/** Takes the timer back. */
	stop(): void {
		if (this.#wake === undefined) return;
		clearTimeout(this.#wake);
		this.#wake = undefined;
	}
}

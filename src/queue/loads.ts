import { type Model, type Place, unclearModel } from "./model.ts";
import { Together } from "./together.ts";

/** A load that takes so many times as long as the one before waits for a model to fall idle. */
const longestOfLoads = 2;
/** A load that took less than this part of the one before was none. */
const leastOfLoad = 0.7;

/**
 * Which models are loaded, as far as is known, and the one load that is on its
 * way. Ollama lets a model go for another without a word, so what may have had to
 * go counts as gone until Ollama says that it is there.
 */
export class Loads {
	readonly #models: ReadonlyMap<string, Model>;
	/** The model that is being loaded. */
	#current: Model | undefined;
	/** As far as is known, no other has to go for it. */
	#fits = false;
	readonly #together = new Together();
	/** What was loaded when the load began. */
	#before: ReadonlySet<Model> = new Set();
	/** Models that may have had to go for the last load; `undefined` once that is known. */
	#displaced: ReadonlySet<Model> | undefined;
	/** When a load has ended last. */
	#changedMs = Number.NEGATIVE_INFINITY;
	/** Nobody says which models are loaded, so all are taken to be. */
	#isKnown = true;

	/** @param models all that there are, by their keys */
	constructor(models: ReadonlyMap<string, Model>) {
		this.#models = models;
	}

	get current(): Model | undefined {
		return this.#current;
	}

	isLoaded(model: Model): boolean {
		return model.isLoaded || model.key === unclearModel || !this.#isKnown;
	}

	/** Whether all that are loaded and this one were seen loaded at one time. */
	fitsBeside(model: Model): boolean {
		// What the last load has left is not known yet.
		if (this.#displaced !== undefined) return false;
		const keys = [...this.#loadedBeside(model)].map(({ key }) => key);
		return this.#together.hold([model.key, ...keys]);
	}

	/** Whether a load is on its way for which others may have to go. */
	holdsBack(nowMs: number): boolean {
		if (this.#current === undefined) return false;
		const { loader, loadMs } = this.#current;
		if (nowMs - (loader?.startedMs ?? nowMs) > longestOfLoads * loadMs)
			this.#fits = false;
		return !this.#fits;
	}

	/** This request will make Ollama load its model. */
	begin(place: Place): void {
		this.#fits = this.fitsBeside(place.model);
		this.#loadFor(place);
	}

	/** A request of a model has ended: only when what has to go is idle does a load begin. */
	fellIdle(model: Model, nowMs: number): void {
		const loader = this.#current?.loader;
		if (loader !== undefined && loader.model !== model && !this.#fits)
			loader.servedFromMs = nowMs;
	}

	ended(model: Model, nowMs: number): void {
		const { loader } = model;
		if (loader !== undefined) {
			const tookMs = Math.max(1, nowMs - loader.servedFromMs);
			model.loadMs = Math.max(tookMs, model.loadMs * leastOfLoad);
			loader.servedFromMs = nowMs;
		}
		model.isLoaded = true;
		model.turnSinceMs = nowMs;
		model.idleSinceMs = nowMs;
		// Until both are seen loaded.
		if (!this.#fits)
			for (const other of this.#before)
				if (other.running.size === 0) this.#clash(model, other);
		this.#over(model, nowMs);
	}

	/** It came to nothing; the next one tries it again. */
	failed(model: Model, nowMs: number): void {
		this.#over(model, nowMs);
	}

	/**
	 * What Ollama says is loaded; `undefined` if it does not say.
	 *
	 * @param askedMs when it was asked: what was loaded before the last load ended says nothing
	 */
	seen(
		keys: ReadonlySet<string> | undefined,
		nowMs: number,
		askedMs: number,
		modelOf: (key: string) => Model,
	): void {
		if (askedMs < this.#changedMs) return;
		this.#isKnown = keys !== undefined;
		if (keys === undefined) return;
		const there = [...keys].map(modelOf);
		for (const model of there)
			if (model.loader !== undefined) this.ended(model, nowMs);
		const displaced = this.#displaced;
		this.#displaced = undefined;
		for (const model of this.#models.values()) {
			if (!keys.has(model.key)) this.#isGone(model);
			else if (!model.isLoaded) {
				model.isLoaded = true;
				if (displaced?.has(model) !== true) model.turnSinceMs = nowMs;
			}
		}
		for (const model of there)
			for (const other of there) model.clashesWith.delete(other);
		this.#together.seen(keys);
	}

	/** Ollama has ended: nothing is loaded, and what was learnt is void. */
	forget(): void {
		for (const model of this.#models.values()) {
			model.isLoaded = false;
			model.loader = undefined;
			model.clashesWith.clear();
		}
		this.#current = undefined;
		this.#displaced = undefined;
		this.#together.forget();
	}

	#loadedBeside(model: Model): ReadonlySet<Model> {
		const beside = new Set<Model>();
		for (const other of this.#models.values())
			if (other !== model && other.isLoaded) beside.add(other);
		return beside;
	}

	#loadFor(place: Place): void {
		const { model } = place;
		this.#before = this.#loadedBeside(model);
		place.isLoader = true;
		model.loader = place;
		this.#current = model;
	}

	#clash(a: Model, b: Model): void {
		a.clashesWith.add(b);
		b.clashesWith.add(a);
		this.#together.parted(a.key, b.key);
	}

	/** Ollama has made room for a load, if there was none; `seen` says what is still there. */
	#over(model: Model, nowMs: number): void {
		model.loader = undefined;
		if (this.#current === model) this.#current = undefined;
		this.#changedMs = nowMs;
		const others = new Set<Model>();
		for (const other of this.#models.values()) {
			if (other === model || !other.isLoaded) continue;
			// Ollama lets nobody go who answers.
			if (other.running.size > 0) continue;
			other.isLoaded = this.#fits;
			others.add(other);
		}
		this.#displaced = others;
	}

	#isGone(model: Model): void {
		model.isLoaded = false;
		if (this.#current !== undefined) return;
		// Ollama loads it for a request that it has already.
		for (const place of model.running) {
			if (place.hasFirstByte) continue;
			this.#fits = false;
			this.#loadFor(place);
			return;
		}
	}
}

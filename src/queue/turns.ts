import { Fairness } from "./fairness.ts";
import {
	type Asked,
	isBefore,
	type Lane,
	Line,
	Model,
	Place,
	unclearModel,
} from "./model.ts";
import { type Priority, priorities } from "./priority.ts";
import type { Tried } from "./slots.ts";

export interface TurnSettings {
	readonly parallel: number | "auto";
	/** How long a user of a class can be passed over. */
	readonly maxWaitMs: Readonly<Record<Priority, number>>;
	/** For how many times its load a model keeps its turn at least. */
	readonly turnFactor: number;
}

/** A request that could be next, and what that depends on. */
interface Candidate {
	readonly place: Place;
	/** 0 for one whose user has been passed over for too long, else its class from 1 on. */
	readonly rank: number;
}

/** Models that nobody has wanted for so long that there are too many of them are forgotten. */
const maxModels = 1000;
/** For how long at most a loaded model stays idle in its turn before another is loaded. */
const longestPauseMs = 250;
/** A load that takes so many times as long as the one before waits for a model to fall idle. */
const longestOfLoads = 2;
/** Sets of models that are known to fit together. */
const maxTogether = 16;
/** A load that took less than this part of the one before was none. */
const leastOfLoad = 0.7;

/**
 * Decides whose turn it is. It is told what happens and when, and does nothing
 * itself: no clock, no timer, no Ollama.
 *
 * Of what waits, whoever has got nothing for longer than its class may be passed
 * over goes first, then the higher class, then the least served user. That is
 * counted from a user's last turn: its own backlog passes over nobody, and one
 * that is long gives it no more than its part. Ollama itself lets
 * requests for a loaded model pass one that needs a load, and evicts a model only
 * when that falls idle. So a loaded model keeps its turn for a while; then one
 * request is sent that makes Ollama load the other, and nothing more for a model
 * that might have to go, until it is loaded.
 */
export class Turns {
	#settings: TurnSettings;
	/** One for each class: a user's requests of two classes do not compete. */
	readonly #fairness = priorities.map(() => new Fairness());
	readonly #models = new Map<string, Model>();
	/** The model that is being loaded. */
	#loading: Model | undefined;
	/** As far as is known, no other has to go for it. */
	#loadFits = false;
	/**
	 * Keys of models that were seen loaded at one time. Of three that fit in pairs
	 * one may have to go all the same.
	 */
	#together: ReadonlySet<string>[] = [];
	/** What was loaded when the load began. */
	#before: ReadonlySet<Model> = new Set();
	/** Models that may have had to go for the last load; `undefined` once that is known. */
	#displaced: ReadonlySet<Model> | undefined;
	/** When a load has ended last. */
	#changedMs = Number.NEGATIVE_INFINITY;
	/** Nobody says which models are loaded, so all are taken to be. */
	#knowsLoaded = true;
	#waiting = 0;
	#running = 0;
	#wakeMs = Number.POSITIVE_INFINITY;

	constructor(settings: TurnSettings) {
		this.#settings = settings;
	}

	get waiting(): number {
		return this.#waiting;
	}

	get running(): number {
		return this.#running;
	}

	/** When `next` is to be asked again although nothing has happened; Infinity for never. */
	get wakeMs(): number {
		return this.#wakeMs;
	}

	get models(): Iterable<Model> {
		return this.#models.values();
	}

	/** Users with a counter in a class. */
	accounts(priority: Priority): Fairness {
		return this.#fairnessOf(priorities.indexOf(priority));
	}

	/** A request waits from now on. */
	arrived(asked: Asked, nowMs: number): Place {
		const place = new Place(asked, this.#modelOf(asked.model), nowMs);
		const account = this.#fairnessOf(place.rank).enter(asked.user, asked.share);
		const lane = laneOf(place);
		let line = lane.byUser.get(asked.user);
		if (line === undefined) {
			line = new Line(account, lane, nowMs);
			lane.passedOver.add(line);
			lane.byUser.set(asked.user, line);
			account.standings.add(line);
		}
		line.places.add(place);
		lane.lines.add(line);
		lane.arrivals.add(place);
		place.line = line;
		this.#waiting += 1;
		return place;
	}

	/** A request that waited is gone. */
	left(place: Place): void {
		const { line } = place;
		if (place.state !== "waiting" || line === undefined) return;
		place.state = "over";
		this.#stand(place, line);
		this.#fairnessOf(place.rank).leave(line.account);
	}

	/**
	 * Starts the request whose turn it is; `undefined` while there is none. The
	 * caller sends it, and asks again.
	 */
	next(nowMs: number): Place | undefined {
		this.#wakeMs = Number.POSITIVE_INFINITY;
		if (this.#waiting === 0) return undefined;
		let hot: Candidate | undefined;
		let cold: Candidate | undefined;
		const wanted = new Map<Model, Candidate>();
		for (const model of this.#models.values()) {
			const best = this.#bestOf(model, nowMs);
			if (best === undefined) continue;
			if (!this.#isLoaded(model)) {
				if (model !== this.#loading) cold = this.#better(cold, best);
				continue;
			}
			wanted.set(model, best);
			if (this.#hasRoom(model, nowMs)) hot = this.#better(hot, best);
		}
		if (cold !== undefined && this.#mayLoad(cold, wanted, nowMs))
			return this.#load(cold.place, nowMs);
		return hot === undefined ? undefined : this.#start(hot.place, nowMs);
	}

	/**
	 * Ollama has begun to answer a request, so its model is loaded.
	 *
	 * @param isWork whether the GPU works for it; a refusal says nothing of slots
	 */
	firstByte(place: Place, nowMs: number, isWork = true): void {
		if (place.state !== "running" || place.hasFirstByte) return;
		place.hasFirstByte = true;
		if (!isWork) {
			if (place.rivals !== undefined) this.#endTry(place, "unclear", nowMs);
			return;
		}
		if (place.model.loader === place) this.#loadEnded(place.model, nowMs);
		else if (!place.wasTry && place.asked.isStream)
			place.model.slots.answered(nowMs - place.startedMs);
		this.#judgeTry(place, nowMs);
	}

	/**
	 * A request has ended, or was given up.
	 *
	 * @param keepsLoad whether its load counts as service: its client left it
	 * @returns the GPU time that it is charged, in milliseconds
	 */
	finished(place: Place, nowMs: number, keepsLoad = false): number {
		if (place.state !== "running") return 0;
		const { model, charge } = place;
		place.state = "over";
		model.running.delete(place);
		model.idleSinceMs = nowMs;
		this.#running -= 1;
		// Only when what has to go is idle does a load begin.
		const loader = this.#loading?.loader;
		if (loader !== undefined && loader.model !== model && !this.#loadFits)
			loader.servedFromMs = nowMs;
		for (const other of model.running) {
			if (other.rivals?.has(place) !== true || other.hasFirstByte) continue;
			const isLate = model.slots.isLate(nowMs - other.startedMs);
			const tried = other.asked.isStream && isLate ? "waited" : "unclear";
			// Until now it may have waited, in Ollama.
			if (tried === "waited") other.servedFromMs = nowMs;
			this.#endTry(other, tried, nowMs);
		}
		if (place.rivals !== undefined) this.#endTry(place, "unclear", nowMs);
		if (model.loader === place) {
			// It came to nothing; whoever is next tries it again.
			model.loader = undefined;
			if (this.#loading === model) this.#loading = undefined;
			this.#madeRoom(model, nowMs);
		}
		const fromMs = keepsLoad ? place.startedMs : place.servedFromMs;
		const serviceMs = Math.max(0, nowMs - fromMs);
		if (charge !== undefined)
			this.#fairnessOf(place.rank).finish(charge, serviceMs);
		return serviceMs;
	}

	/**
	 * What Ollama says is loaded; `undefined` if it does not say.
	 *
	 * @param askedMs when it was asked: what was loaded before the last load ended says nothing
	 */
	loaded(
		keys: ReadonlySet<string> | undefined,
		nowMs: number,
		askedMs = nowMs,
	): void {
		if (askedMs < this.#changedMs) return;
		this.#knowsLoaded = keys !== undefined;
		if (keys === undefined) return;
		const there = [...keys].map((key) => this.#modelOf(key));
		for (const model of there)
			if (model.loader !== undefined) this.#loadEnded(model, nowMs);
		const displaced = this.#displaced;
		this.#displaced = undefined;
		for (const model of this.#models.values()) {
			if (!keys.has(model.key)) this.#isGone(model);
			else if (!model.isLoaded) {
				model.isLoaded = true;
				if (displaced?.has(model) !== true) model.turnSinceMs = nowMs;
			}
		}
		this.#fit(there, keys);
	}

	/** Puts other settings in force. */
	use(settings: TurnSettings): void {
		const { parallel } = this.#settings;
		this.#settings = settings;
		if (parallel === settings.parallel) return;
		for (const model of this.#models.values())
			model.forgetSlots(settings.parallel);
	}

	/** Ollama has ended: nothing is loaded, and what was learnt of it is void. */
	forget(): void {
		for (const model of this.#models.values()) {
			model.isLoaded = false;
			model.loader = undefined;
			model.clashesWith.clear();
			model.forgetSlots(this.#settings.parallel);
		}
		this.#loading = undefined;
		this.#displaced = undefined;
		this.#together = [];
	}

	/** Charges what runs for longer than was expected. */
	tick(nowMs: number): void {
		if (this.#waiting === 0) return;
		for (const model of this.#models.values())
			for (const place of model.running) {
				const { charge, rank, servedFromMs, rivals } = place;
				// These may wait in Ollama.
				if (place === model.loader || rivals !== undefined) continue;
				if (charge !== undefined)
					this.#fairnessOf(rank).grow(charge, nowMs - servedFromMs);
			}
	}

	/** How many are likely to go before a request that waits, at most all that wait. */
	aheadOf(place: Place): number {
		const { line } = place;
		if (place.state !== "waiting" || line === undefined) return 0;
		let own = 0;
		for (const other of line.places) {
			if (other === place) break;
			own += 1;
		}
		let ahead = own;
		for (let rank = 0; rank < place.rank; rank += 1)
			ahead += place.model.lanes[rank]?.arrivals.size ?? 0;
		for (const other of line.lane.lines) {
			if (other === line) continue;
			const rounds = own + (isBefore(other.account, line.account) ? 1 : 0);
			ahead += Math.min(other.places.size, rounds);
		}
		return ahead;
	}

	/** Whether a model is being loaded, or waits to be. */
	get wantsLoad(): boolean {
		if (this.#loading !== undefined) return true;
		for (const model of this.#models.values())
			if (!this.#isLoaded(model) && model.waiting > 0) return true;
		return false;
	}

	#fairnessOf(rank: number): Fairness {
		const fairness = this.#fairness[rank];
		if (fairness === undefined) throw new Error(`there is no class ${rank}`);
		return fairness;
	}

	#modelOf(key: string): Model {
		let model = this.#models.get(key);
		if (model !== undefined) return model;
		if (this.#models.size >= maxModels)
			for (const [name, { isIdle, isLoaded }] of this.#models)
				if (isIdle && !isLoaded) this.#models.delete(name);
		model = new Model(key, this.#settings.parallel);
		this.#models.set(key, model);
		return model;
	}

	#isLoaded(model: Model): boolean {
		return model.isLoaded || model.key === unclearModel || !this.#knowsLoaded;
	}

	#bestOf(model: Model, nowMs: number): Candidate | undefined {
		let best: Candidate | undefined;
		for (const [index, priority] of priorities.entries()) {
			const lane = model.lanes[index];
			const [longest] = lane?.passedOver ?? [];
			if (longest === undefined) continue;
			const isDue = nowMs >= this.#dueMs(longest, priority);
			if (!isDue && best !== undefined) continue;
			const [place] = (isDue ? longest : lane?.lines.first)?.places ?? [];
			if (place !== undefined)
				best = this.#better(best, { place, rank: isDue ? 0 : index + 1 });
		}
		return best;
	}

	#better(a: Candidate | undefined, b: Candidate): Candidate {
		return a === undefined || this.#goesBefore(b, a) ? b : a;
	}

	#goesBefore(a: Candidate, b: Candidate): boolean {
		if (a.rank !== b.rank) return a.rank < b.rank;
		const [mine, other] = [a.place.line, b.place.line];
		if (mine === undefined || other === undefined) return false;
		if (a.rank > 0) return isBefore(mine.account, other.account);
		const [mineMs, otherMs] = [
			this.#dueMs(mine, a.place.asked.priority),
			this.#dueMs(other, b.place.asked.priority),
		];
		return mineMs < otherMs;
	}

	#dueMs({ sinceMs }: Line, priority: Priority): number {
		return sinceMs + this.#settings.maxWaitMs[priority];
	}

	/** Whether one more may be sent to a loaded model. */
	#hasRoom(model: Model, nowMs: number): boolean {
		if (this.#loading !== undefined && !this.#loadsBeside(this.#loading, nowMs))
			return false;
		const { slots, running } = model;
		if (running.size < slots.known) return true;
		return running.size === slots.known && slots.mayTry(nowMs);
	}

	/** Whether a model may be loaded although others that might have to go are wanted too. */
	#mayLoad(
		cold: Candidate,
		wanted: ReadonlyMap<Model, Candidate>,
		nowMs: number,
	): boolean {
		if (this.#loading !== undefined) return false;
		if (this.#fitsBeside(cold.place.model)) return true;
		for (const model of this.#models.values())
			if (
				this.#isLoaded(model) &&
				this.#keepsTurn(model, cold, wanted.get(model), nowMs)
			)
				return false;
		return true;
	}

	/** @param hot what waits for the model that is loaded */
	#keepsTurn(
		model: Model,
		cold: Candidate,
		hot: Candidate | undefined,
		nowMs: number,
	): boolean {
		// Of two that have waited too long the turn decides too: by their age alone each would be loaded for.
		if (hot !== undefined && hot.rank !== cold.rank)
			return !this.#goesBefore(cold, hot);
		const turnMs = this.#settings.turnFactor * model.loadMs;
		const isOver = this.#isPast(model.turnSinceMs + turnMs, nowMs);
		if (hot !== undefined) return !isOver || this.#goesBefore(hot, cold);
		// Whether it has to go at all is tried once.
		if (isOver || cold.rank === 0 || !model.clashesWith.has(cold.place.model))
			return false;
		if (model.running.size > 0) {
			const ranks = [...model.running].map(({ rank }) => rank + 1);
			return cold.rank >= Math.min(...ranks);
		}
		// Whoever was answered last may ask again.
		const pauseMs = Math.min(longestPauseMs, model.loadMs / 4);
		return !this.#isPast(model.idleSinceMs + pauseMs, nowMs);
	}

	/** Whether a time has come; if not, `next` is to be asked again then. */
	#isPast(timeMs: number, nowMs: number): boolean {
		if (nowMs >= timeMs) return true;
		this.#wakeMs = Math.min(this.#wakeMs, timeMs);
		return false;
	}

	/** Whether all that are loaded and this one were seen loaded at one time. */
	#fitsBeside(model: Model): boolean {
		// What the last load has left is not known yet.
		if (this.#displaced !== undefined) return false;
		return this.#together.some((keys) => {
			if (!keys.has(model.key)) return false;
			for (const other of this.#models.values())
				if (other.isLoaded && !keys.has(other.key)) return false;
			return true;
		});
	}

	#loadedBeside(model: Model): ReadonlySet<Model> {
		const beside = new Set<Model>();
		for (const other of this.#models.values())
			if (other !== model && other.isLoaded) beside.add(other);
		return beside;
	}

	/** Whether nothing has to go for a load that is on its way. */
	#loadsBeside({ loader, loadMs }: Model, nowMs: number): boolean {
		if (nowMs - (loader?.startedMs ?? nowMs) > longestOfLoads * loadMs)
			this.#loadFits = false;
		return this.#loadFits;
	}

	#fit(models: readonly Model[], keys: ReadonlySet<string>): void {
		for (const model of models)
			for (const other of models) model.clashesWith.delete(other);
		if (keys.size < 2 || this.#together.some((known) => holds(known, keys)))
			return;
		this.#together = this.#together.filter((known) => !holds(keys, known));
		this.#together.push(new Set(keys));
		if (this.#together.length > maxTogether) this.#together.shift();
	}

	#clash(a: Model, b: Model): void {
		a.clashesWith.add(b);
		b.clashesWith.add(a);
		this.#together = this.#together.filter(
			(known) => !(known.has(a.key) && known.has(b.key)),
		);
	}

	#load(place: Place, nowMs: number): Place {
		const { model } = place;
		this.#loadFits = this.#fitsBeside(model);
		this.#before = this.#loadedBeside(model);
		place.isLoader = true;
		model.loader = place;
		this.#loading = model;
		return this.#start(place, nowMs);
	}

	#start(place: Place, nowMs: number): Place {
		const { line, model } = place;
		if (line === undefined) throw new Error("a request without a line");
		if (!place.isLoader && model.running.size >= model.slots.known) {
			place.rivals = new Set(model.running);
			place.wasTry = true;
			model.slots.begin();
		}
		this.#stand(place, line);
		line.served(nowMs);
		place.charge = this.#fairnessOf(place.rank).start(line.account);
		place.state = "running";
		place.startedMs = nowMs;
		place.servedFromMs = nowMs;
		model.running.add(place);
		this.#running += 1;
		return place;
	}

	/** Takes a request out of its line. */
	#stand(place: Place, line: Line): void {
		line.lane.arrivals.delete(place);
		line.places.delete(place);
		place.line = undefined;
		this.#waiting -= 1;
		if (line.places.size > 0) return;
		line.lane.lines.delete(line);
		line.lane.passedOver.delete(line);
		line.lane.byUser.delete(place.asked.user);
		line.account.standings.delete(line);
	}

	#loadEnded(model: Model, nowMs: number): void {
		const { loader } = model;
		if (loader !== undefined) {
			const tookMs = Math.max(1, nowMs - loader.servedFromMs);
			model.loadMs = Math.max(tookMs, model.loadMs * leastOfLoad);
			loader.servedFromMs = nowMs;
		}
		model.loader = undefined;
		model.isLoaded = true;
		model.turnSinceMs = nowMs;
		model.idleSinceMs = nowMs;
		if (this.#loading === model) this.#loading = undefined;
		// Until both are seen loaded.
		if (!this.#loadFits)
			for (const other of this.#before)
				if (other.running.size === 0) this.#clash(model, other);
		this.#madeRoom(model, nowMs);
	}

	/** Ollama has made room for a load, if there was none; `loaded` says what is still there. */
	#madeRoom(model: Model, nowMs: number): void {
		this.#changedMs = nowMs;
		const others = new Set<Model>();
		for (const other of this.#models.values()) {
			if (other === model || !other.isLoaded) continue;
			// Ollama lets nobody go who answers.
			if (other.running.size > 0) continue;
			other.isLoaded = this.#loadFits;
			others.add(other);
		}
		this.#displaced = others;
	}

	#isGone(model: Model): void {
		model.isLoaded = false;
		if (this.#loading !== undefined) return;
		// Ollama loads it for a request that it has already.
		for (const place of model.running) {
			if (place.hasFirstByte) continue;
			place.isLoader = true;
			model.loader = place;
			this.#loading = model;
			this.#loadFits = false;
			this.#before = this.#loadedBeside(model);
			return;
		}
	}

	#judgeTry(place: Place, nowMs: number): void {
		const { rivals, model } = place;
		if (rivals === undefined) return;
		for (const rival of rivals)
			if (!model.running.has(rival))
				return void this.#endTry(place, "unclear", nowMs);
		this.#endTry(place, "fits", nowMs);
	}

	#endTry(place: Place, tried: Tried, nowMs: number): void {
		place.rivals = undefined;
		place.model.slots.end(tried, nowMs);
	}
}

function laneOf({ model, rank }: Place): Lane {
	const lane = model.lanes[rank];
	if (lane === undefined) throw new Error(`there is no class ${rank}`);
	return lane;
}

function holds(all: ReadonlySet<string>, some: ReadonlySet<string>): boolean {
	for (const key of some) if (!all.has(key)) return false;
	return true;
}

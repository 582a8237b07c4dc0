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
	/** How long a class can be passed over. */
	readonly maxWaitMs: Readonly<Record<Priority, number>>;
	/** For how many times its load a model keeps its turn at least. */
	readonly turnFactor: number;
}

/** A request that could be next, and what that depends on. */
interface Candidate {
	readonly place: Place;
	/** 0 for one that has waited too long, else its class from 1 on. */
	readonly rank: number;
}

/** Models that nobody has wanted for so long that there are too many of them are forgotten. */
const maxModels = 1000;
/** For how long at most a loaded model stays idle in its turn before another is loaded. */
const longestPauseMs = 250;
/** A load that took less than this part of the one before was none. */
const leastOfLoad = 0.7;

/**
 * Decides whose turn it is. It is told what happens and when, and does nothing
 * itself: no clock, no timer, no Ollama.
 *
 * Of what waits, what has waited longer than its class may be passed over goes
 * first, then the higher class, then the least served user. Ollama itself lets
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
	/** The model that was loaded last, and those that may have had to go for it. */
	#displaced: { by: Model; models: ReadonlySet<Model> } | undefined;
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
			line = new Line(account, lane);
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
		if (this.#waiting === 0) return undefined;
		this.#wakeMs = Number.POSITIVE_INFINITY;
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

	/** Ollama has begun to answer a request, so its model is loaded. */
	firstByte(place: Place, nowMs: number): void {
		if (place.state !== "running" || place.hasFirstByte) return;
		place.hasFirstByte = true;
		if (place.model.loader === place) this.#loadEnded(place.model, nowMs);
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
		if (loader !== undefined && loader.model !== model)
			loader.servedFromMs = nowMs;
		for (const other of model.running)
			if (other.rivals?.has(place) === true && !other.hasFirstByte)
				this.#endTry(other, other.asked.isStream ? "waited" : "unclear", nowMs);
		if (place.rivals !== undefined) this.#endTry(place, "unclear", nowMs);
		if (model.loader === place) {
			// It came to nothing; whoever is next tries it again.
			model.loader = undefined;
			if (this.#loading === model) this.#loading = undefined;
		}
		const fromMs = keepsLoad ? place.startedMs : place.servedFromMs;
		const serviceMs = Math.max(0, nowMs - fromMs);
		if (charge !== undefined)
			this.#fairnessOf(place.rank).finish(charge, serviceMs);
		return serviceMs;
	}

	/** What Ollama says is loaded; `undefined` if it does not say. */
	loaded(keys: ReadonlySet<string> | undefined, nowMs: number): void {
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
				if (displaced?.models.has(model) !== true) model.turnSinceMs = nowMs;
			}
		}
		for (const model of there)
			for (const other of there) if (other !== model) fit(model, other);
		for (const model of displaced?.models ?? [])
			if (displaced !== undefined && !model.isLoaded)
				clash(displaced.by, model);
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
			model.fitsWith.clear();
			model.clashesWith.clear();
			model.forgetSlots(this.#settings.parallel);
		}
		this.#loading = undefined;
	}

	/** Charges what runs for longer than was expected. */
	tick(nowMs: number): void {
		if (this.#waiting === 0) return;
		for (const model of this.#models.values())
			for (const { charge, rank, servedFromMs, hasFirstByte } of model.running)
				if (charge !== undefined && hasFirstByte)
					this.#fairnessOf(rank).grow(charge, nowMs - servedFromMs);
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
			for (const [name, { isIdle }] of this.#models)
				if (isIdle) this.#models.delete(name);
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
			const [oldest] = model.lanes[index]?.arrivals ?? [];
			if (oldest === undefined) continue;
			if (nowMs - oldest.arrivedMs >= this.#settings.maxWaitMs[priority])
				best = this.#better(best, { place: oldest, rank: 0 });
			else if (best === undefined) {
				const [place] = model.lanes[index]?.lines.first?.places ?? [];
				if (place !== undefined) best = { place, rank: index + 1 };
			}
		}
		return best;
	}

	#better(a: Candidate | undefined, b: Candidate): Candidate {
		return a === undefined || this.#goesBefore(b, a) ? b : a;
	}

	#goesBefore(a: Candidate, b: Candidate): boolean {
		if (a.rank !== b.rank) return a.rank < b.rank;
		if (a.rank === 0) return this.#dueMs(a.place) < this.#dueMs(b.place);
		const [mine, other] = [a.place.line?.account, b.place.line?.account];
		return mine !== undefined && other !== undefined && isBefore(mine, other);
	}

	#dueMs({ arrivedMs, asked }: Place): number {
		return arrivedMs + this.#settings.maxWaitMs[asked.priority];
	}

	/** Whether one more may be sent to a loaded model. */
	#hasRoom(model: Model, nowMs: number): boolean {
		const loading = this.#loading;
		if (loading !== undefined && !loading.fitsWith.has(model)) return false;
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
		for (const model of this.#models.values())
			if (
				this.#isLoaded(model) &&
				!model.fitsWith.has(cold.place.model) &&
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

	#load(place: Place, nowMs: number): Place {
		const { model } = place;
		place.isLoader = true;
		model.loader = place;
		this.#loading = model;
		return this.#start(place, nowMs);
	}

	#start(place: Place, nowMs: number): Place {
		const { line, model } = place;
		if (line === undefined) throw new Error("a request without a line");
		if (model.isLoaded && model.running.size >= model.slots.known) {
			place.rivals = new Set(model.running);
			model.slots.begin();
		}
		this.#stand(place, line);
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
		// Ollama has made room for it, if there was none; `loaded` says what is still there.
		const others = new Set<Model>();
		for (const other of this.#models.values()) {
			if (other === model || !other.isLoaded || model.fitsWith.has(other))
				continue;
			other.isLoaded = false;
			others.add(other);
		}
		this.#displaced = { by: model, models: others };
	}

	#isGone(model: Model): void {
		if (model.isLoaded) {
			model.isLoaded = false;
			for (const other of model.fitsWith) other.fitsWith.delete(model);
			model.fitsWith.clear();
			// Ollama makes room before it loads, so it has gone for that.
			if (this.#loading !== undefined && this.#loading !== model)
				clash(this.#loading, model);
		}
		if (this.#loading !== undefined) return;
		// Ollama loads it for a request that it has already.
		for (const place of model.running) {
			if (place.hasFirstByte) continue;
			place.isLoader = true;
			model.loader = place;
			this.#loading = model;
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
		// Until now it waited, in Ollama.
		if (tried === "waited") place.servedFromMs = nowMs;
		place.model.slots.end(tried, nowMs);
	}
}

function laneOf({ model, rank }: Place): Lane {
	const lane = model.lanes[rank];
	if (lane === undefined) throw new Error(`there is no class ${rank}`);
	return lane;
}

function clash(a: Model, b: Model): void {
	a.clashesWith.add(b);
	b.clashesWith.add(a);
}

function fit(a: Model, b: Model): void {
	a.fitsWith.add(b);
	a.clashesWith.delete(b);
}

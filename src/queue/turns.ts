import { type Priority, priorities } from "../priority.ts";
import { CommonQueue } from "./common.ts";
import type { Fairness } from "./fairness.ts";
import { mayHaveLastFromMs } from "./lastSlot.ts";
import { Loads } from "./loads.ts";
import {
	type Asked,
	isAtWork,
	type Line,
	laneOf,
	Model,
	Place,
} from "./model.ts";
import {
	bestOf,
	better,
	type Candidate,
	goesBefore,
	type MaxWaits,
} from "./order.ts";
import { answered, begins, ends, endTry, worked } from "./tries.ts";

export interface TurnSettings {
	readonly parallel: number | "auto";
	readonly maxWaitMs: MaxWaits;
	/** For how many times its load a model keeps its turn at least. */
	readonly turnFactor: number;
}

/** Models that nobody has wanted for so long that there are too many of them are forgotten. */
const maxModels = 1000;
/** For how long at most a loaded model stays idle in its turn before another is loaded. */
const longestPauseMs = 250;
/** A request that was sent so long ago has reached Ollama. */
const arrivalMs = 50;

/**
 * Decides whose turn it is. It is told what happens and when, and does nothing
 * itself: no clock, no timer, no Ollama.
 *
 * Of what waits, one that has got nothing for longer than its class may be passed
 * over goes first, then the higher class, then the least served user. That is
 * counted while nothing of a user's is at work: its own requests pass over nobody,
 * however many or long they are. Ollama itself lets requests for a loaded
 * model pass one that needs a load, and evicts a model only when that falls idle.
 * So a loaded model keeps its turn for a while; then one request is sent that makes
 * Ollama load the other, and nothing more for a model that might have to go, until
 * it is loaded.
 */
export class Turns {
	#settings: TurnSettings;
	/** One for each class. */
	readonly #fairness: readonly Fairness[];
	/** Told of each request's service once it has ended, in milliseconds divided by its user's share. */
	onServed: ((place: Place, ms: number) => void) | undefined;
	readonly #models = new Map<string, Model>();
	readonly #loads = new Loads(this.#models);
	#waiting = 0;
	#running = 0;
	#wakeMs = Number.POSITIVE_INFINITY;

	/** @param fairness what users have had, of each class; other hosts' too where there are several */
	constructor(
		settings: TurnSettings,
		fairness: readonly Fairness[] = new CommonQueue().fairness,
	) {
		this.#settings = settings;
		this.#fairness = fairness;
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
		const place = new Place(asked, this.#modelOf(asked.model));
		const account = this.#fairnessOf(place.rank).enter(asked.user, asked.share);
		const lane = laneOf(place);
		const line = lane.lineOf(place, account, nowMs);
		line.places.add(place);
		lane.lines.add(line);
		lane.arrivals.add(place);
		place.line = line;
		place.model.visitors.note(place, nowMs);
		this.#waiting += 1;
		return place;
	}

	/**
	 * Starts a request that comes while nobody waits and its model has room, as
	 * `arrived` and `next` would; `undefined` if it has to wait, and nothing has changed.
	 */
	pass(asked: Asked, nowMs: number): Place | undefined {
		if (this.#waiting > 0) return undefined;
		const model = this.#models.get(asked.model);
		if (
			model === undefined ||
			!this.#loads.isLoaded(model) ||
			this.#loads.holdsBack(nowMs) ||
			model.running.size >= model.slots.known
		)
			return undefined;
		const place = new Place(asked, model);
		if (!this.#isPast(mayHaveLastFromMs(place), nowMs)) return undefined;
		place.charge = this.#fairnessOf(place.rank).pass(asked.user, asked.share);
		return this.#run(place, nowMs);
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
			const best = bestOf(model, this.#settings.maxWaitMs, nowMs);
			if (best === undefined) continue;
			if (!this.#loads.isLoaded(model)) {
				if (model !== this.#loads.current) cold = better(cold, best);
				continue;
			}
			wanted.set(model, best);
			if (this.#hasRoom(best, nowMs)) hot = better(hot, best);
		}
		if (cold !== undefined && this.#mayLoad(cold, wanted, nowMs)) {
			this.#loads.begin(cold.place);
			return this.#start(cold.place, nowMs);
		}
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
		if (!isWork) endTry(place, "unclear", nowMs);
		else if (place.model.loader === place)
			this.#loads.ended(place.model, nowMs);
		else answered(place, nowMs);
	}

	/** The GPU works, or has worked, for a request since its first byte. */
	worked(place: Place, nowMs: number): void {
		if (place.state === "running") worked(place, nowMs);
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
		model.visitors.note(place, nowMs);
		model.idleSinceMs = nowMs;
		this.#running -= 1;
		if (this.#waiting > 0 && !isAtWork(place))
			laneOf(place).byUser.get(place.asked.user)?.rests(nowMs);
		this.#loads.fellIdle(model, nowMs);
		ends(place, nowMs);
		if (model.loader === place) this.#loads.failed(model, nowMs);
		const fromMs = keepsLoad ? place.startedMs : place.servedFromMs;
		const serviceMs = Math.max(0, nowMs - fromMs);
		if (charge !== undefined) {
			this.#fairnessOf(place.rank).finish(charge, serviceMs);
			this.onServed?.(place, serviceMs / charge.share);
		}
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
		this.#loads.seen(keys, nowMs, askedMs, (key) => this.#modelOf(key));
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
		this.#loads.forget();
		for (const model of this.#models.values())
			model.forgetSlots(this.#settings.parallel);
	}

	/**
	 * Ollama is back that was away. What was with it may never end here, so it holds
	 * no slot any more; it counts as served until Ollama went.
	 *
	 * @param isHeard what goes on all the same, and keeps its slot
	 */
	letGo(
		awaySinceMs: number,
		nowMs: number,
		isHeard: (place: Place) => boolean,
	): void {
		for (const { running } of this.#models.values())
			for (const place of [...running]) {
				if (isHeard(place)) continue;
				const servedMs = Math.max(0, awaySinceMs - place.servedFromMs);
				place.servedFromMs = nowMs - servedMs;
				this.finished(place, nowMs);
			}
	}

	/** Charges what runs for longer than was expected. */
	tick(nowMs: number): void {
		if (this.#waiting === 0) return;
		for (const model of this.#models.values())
			for (const place of model.running) {
				const { charge, rank, servedFromMs, rivals, hasFirstByte } = place;
				// These may wait in Ollama.
				if (place === model.loader || (rivals && !hasFirstByte)) continue;
				if (charge !== undefined)
					this.#fairnessOf(rank).grow(charge, nowMs - servedFromMs);
			}
	}

	/** Whether a model is being loaded, or waits to be. */
	get wantsLoad(): boolean {
		if (this.#loads.current !== undefined) return true;
		if (this.#waiting === 0) return false;
		for (const model of this.#models.values())
			if (!this.#loads.isLoaded(model) && model.waiting > 0) return true;
		return false;
	}

	#fairnessOf(rank: number): Fairness {
		const fairness = this.#fairness[rank];
		if (fairness === undefined) throw new Error(`class ${rank} does not exist`);
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

	/** Whether a request may be sent to its model, which is loaded. */
	#hasRoom({ place, rank }: Candidate, nowMs: number): boolean {
		const { slots, running } = place.model;
		if (this.#loads.holdsBack(nowMs)) return false;
		const beyond = running.size - slots.known;
		if (beyond > 0 || (beyond === 0 && !slots.mayTry(nowMs))) return false;
		return rank === 0 || this.#isPast(mayHaveLastFromMs(place), nowMs);
	}

	/** Whether a model may be loaded although others that might have to go are wanted too. */
	#mayLoad(
		cold: Candidate,
		wanted: ReadonlyMap<Model, Candidate>,
		nowMs: number,
	): boolean {
		if (this.#loads.current !== undefined) return false;
		if (this.#loads.fitsBeside(cold.place.model)) return true;
		for (const model of this.#models.values())
			if (
				this.#loads.isLoaded(model) &&
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
		// Ollama would let the model go first, and load it anew for what comes a moment later.
		for (const { hasFirstByte, startedMs } of model.running)
			if (!hasFirstByte && !this.#isPast(startedMs + arrivalMs, nowMs))
				return true;
		// Of two that have waited too long the turn decides too: by their age alone each would be loaded for.
		if (hot !== undefined && hot.rank !== cold.rank)
			return !goesBefore(cold, hot);
		const turnMs = this.#settings.turnFactor * model.loadMs;
		const isOver = this.#isPast(model.turnSinceMs + turnMs, nowMs);
		if (hot !== undefined) return !isOver || goesBefore(hot, cold);
		// Whether it has to go at all is tried once.
		if (isOver || cold.rank === 0 || !model.clashesWith.has(cold.place.model))
			return false;
		if (model.running.size > 0) {
			const ranks = [...model.running].map(({ rank }) => rank + 1);
			return cold.rank >= Math.min(...ranks);
		}
		// The one who was answered last may ask again.
		const pauseMs = Math.min(longestPauseMs, model.loadMs / 4);
		return !this.#isPast(model.idleSinceMs + pauseMs, nowMs);
	}

	/** Whether a time has come; if not, `next` is to be asked again then. */
	#isPast(timeMs: number, nowMs: number): boolean {
		if (nowMs >= timeMs) return true;
		this.#wakeMs = Math.min(this.#wakeMs, timeMs);
		return false;
	}

	#start(place: Place, nowMs: number): Place {
		const { line } = place;
		if (line === undefined) throw new Error("a request without a line");
		this.#stand(place, line);
		line.served();
		place.charge = this.#fairnessOf(place.rank).start(line.account);
		return this.#run(place, nowMs);
	}

	#run(place: Place, nowMs: number): Place {
		place.state = "running";
		place.startedMs = nowMs;
		place.servedFromMs = nowMs;
		begins(place);
		place.model.running.add(place);
		place.model.visitors.note(place, nowMs);
		this.#running += 1;
		return place;
	}

	/** Takes a request out of its line. */
	#stand(place: Place, line: Line): void {
		line.lane.arrivals.delete(place);
		line.places.delete(place);
		place.line = undefined;
		this.#waiting -= 1;
		if (this.#waiting === 0) this.#wakeMs = Number.POSITIVE_INFINITY;
		if (line.places.size > 0) return;
		line.lane.lines.delete(line);
		line.lane.passedOver.delete(line);
		line.lane.byUser.delete(place.asked.user);
		line.account.standings?.delete(line);
	}
}

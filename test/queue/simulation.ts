import assert from "node:assert/strict";
import { priorities } from "../../src/priority.ts";
import { pollEveryMs } from "../../src/queue/loadedPoll.ts";
import {
	type Asked,
	isBefore,
	type Model,
	type Place,
} from "../../src/queue/model.ts";
import { type TurnSettings, Turns } from "../../src/queue/turns.ts";
import { Clock, type Job, type Machine, OllamaModel } from "./ollamaModel.ts";

/** A request as a client makes it. */
export interface Request extends Asked {
	/** Once it has a slot. */
	readonly firstByteMs: number;
	readonly serviceMs: number;
	/** Its client leaves so long after its arrival. */
	readonly patienceMs?: number;
}

/** A request's way through the simulation. */
export interface Trip {
	readonly request: Request;
	readonly arrivedMs: number;
	readonly place: Place;
	readonly job: Job;
	startedMs: number;
	endedMs: number;
	end: "" | "served" | "failed" | "left" | "abandoned";
	isKept: boolean;
}

export interface Conditions {
	readonly machine: Machine;
	readonly settings?: Partial<TurnSettings>;
	/** From asking what is loaded to the answer, which is from half way; Infinity where Ollama never says. */
	readonly psMs?: number;
	/** How often what runs is charged. */
	readonly tickMs?: number;
	/** Models go without the queue's doing: by their keep_alive, or with Ollama. */
	readonly mayVanish?: boolean;
	/** Each request stands in a line first, also where it can pass at once. */
	readonly isLinedUp?: boolean;
	/** Look at every invariant after every event. */
	readonly isStrict?: boolean;
}

/** A request of a user, who has one part; other things of it as a test wants them. */
export const asked = (user: string, more: Partial<Asked> = {}): Asked => ({
	...{ user, share: 1, priority: "normal", model: "m", isStream: true },
	...more,
});

/** Everything that may go. */
export function go(turns: Turns, nowMs: number): Place[] {
	const places: Place[] = [];
	for (;;) {
		const place = turns.next(nowMs);
		if (place === undefined) return places;
		places.push(place);
	}
}

export const never = Number.POSITIVE_INFINITY;
export const defaultSettings: TurnSettings = {
	parallel: "auto",
	maxWaitMs: { interactive: 120_000, normal: 600_000, batch: 21_600_000 },
	turnFactor: 8,
};
const lookMs = 250;
/** Of turns.ts. */
const longestPauseMs = 250;

/** Clients, the queue and Ollama in virtual time; the queue is driven as the gate drives it. */
export class Simulation {
	readonly clock = new Clock();
	readonly ollama: OllamaModel;
	readonly turns: Turns;
	readonly trips: Trip[] = [];
	readonly #conditions: Conditions;
	readonly #trips = new Map<Place, Trip>();
	readonly #waiting = new Set<Trip>();
	readonly #running = new Set<Trip>();
	/** GPU time of what is over, by user. */
	readonly #served = new Map<string, number>();
	#wake: (() => void) | undefined;
	#poll: (() => void) | undefined;
	#isAsking = false;
	#askedMs = Number.NEGATIVE_INFINITY;
	#idleSinceMs: number | undefined;
	longestIdleMs = 0;
	started = 0;
	left = 0;
	/** Called after every event. */
	onEvent: () => void = () => {};

	constructor(conditions: Conditions) {
		this.#conditions = conditions;
		this.ollama = new OllamaModel(this.clock, conditions.machine);
		this.turns = new Turns({ ...defaultSettings, ...conditions.settings });
		const { tickMs = 1000 } = conditions;
		if (tickMs < never) this.#tick(tickMs);
	}

	get nowMs(): number {
		return this.clock.nowMs;
	}

	get waiting(): number {
		return this.#waiting.size;
	}

	get running(): number {
		return this.#running.size;
	}

	/** GPU time that a user has had, in milliseconds. */
	servedMs(user: string): number {
		let sum = this.#served.get(user) ?? 0;
		for (const { request, job } of this.#running)
			if (request.user === user && job.slotSinceMs !== undefined)
				sum += this.nowMs - job.slotSinceMs;
		return sum;
	}

	/** @param done called at its end, whatever that is */
	submit(request: Request, done: (trip: Trip) => void = () => {}): Trip {
		const { nowMs } = this;
		const passed =
			this.#conditions.isLinedUp === true
				? undefined
				: this.turns.pass(request, nowMs);
		const place = passed ?? this.turns.arrived(request, nowMs);
		const ended = () => {
			if (trip.job.slotSinceMs === undefined) this.#over(trip, "failed", done);
			else this.#over(trip, "served", done);
		};
		const job: Job = {
			model: request.model,
			firstByteMs: request.isStream ? request.firstByteMs : request.serviceMs,
			serviceMs: request.serviceMs,
			firstByte: () => this.#firstByte(trip, done),
			ended,
		};
		const trip: Trip = {
			...{ request, arrivedMs: nowMs, place, job },
			...{ startedMs: never, endedMs: never, end: "", isKept: false },
		};
		this.trips.push(trip);
		this.#trips.set(place, trip);
		if (passed === undefined) this.#waiting.add(trip);
		else this.#send(trip);
		if (request.patienceMs !== undefined)
			this.clock.after(request.patienceMs, () => this.#leave(trip, done));
		this.#pump();
		return trip;
	}

	/** Ollama is started anew: everything breaks off. */
	restart(done: (trip: Trip) => void = () => {}): void {
		const running = [...this.#running];
		this.turns.forget();
		for (const trip of running) this.ollama.abort(trip.job);
		for (const model of this.ollama.loaded) this.ollama.expire(model);
		for (const trip of running) this.#over(trip, "failed", done, true);
		this.#pump();
	}

	/** Runs until nothing happens any more, or that time has come. */
	run(endMs = never): void {
		let events = 0;
		while (this.nowMs < endMs) {
			if (this.#waiting.size + this.#running.size === 0 && !this.#hasArrivals())
				break;
			if (!this.clock.step()) break;
			events += 1;
			assert.ok(events < 2_000_000, "it never ends");
		}
	}

	/** Arrivals that are still to come. */
	arrivals = 0;
	arriveAt(atMs: number, request: Request, done?: (trip: Trip) => void): void {
		this.arrivals += 1;
		this.clock.at(atMs, () => {
			this.arrivals -= 1;
			this.submit(request, done);
		});
	}

	#hasArrivals(): boolean {
		return this.arrivals > 0;
	}

	#tick(tickMs: number): void {
		this.clock.after(tickMs, () => {
			this.turns.tick(this.nowMs);
			this.#pump();
			this.#tick(tickMs);
		});
	}

	#firstByte(trip: Trip, done: (trip: Trip) => void): void {
		this.turns.firstByte(trip.place, this.nowMs);
		if (trip.isKept) {
			this.ollama.abort(trip.job);
			this.#over(trip, "abandoned", done);
			return;
		}
		if (trip.place.isLoader) this.#ask();
		// As the gate looks whether a reply goes on.
		if (trip.place.rivals !== undefined)
			this.clock.after(lookMs, () => {
				this.turns.worked(trip.place, this.nowMs);
				this.#pump();
			});
		this.#pump();
	}

	#leave(trip: Trip, done: (trip: Trip) => void): void {
		if (this.#waiting.delete(trip)) {
			this.turns.left(trip.place);
			this.left += 1;
			trip.end = "left";
			trip.endedMs = this.nowMs;
			done(trip);
			this.#pump();
			return;
		}
		if (trip.end !== "") return;
		if (trip.place.model.loader === trip.place) {
			trip.isKept = true;
			return;
		}
		this.ollama.abort(trip.job);
		this.#over(trip, "abandoned", done);
	}

	#over(
		trip: Trip,
		end: Trip["end"],
		done: (trip: Trip) => void,
		isQuiet = false,
	): void {
		const { nowMs } = this;
		const { user } = trip.request;
		this.#running.delete(trip);
		this.#trips.delete(trip.place);
		trip.end = end;
		trip.endedMs = nowMs;
		const { slotSinceMs } = trip.job;
		if (slotSinceMs !== undefined)
			this.#served.set(
				user,
				(this.#served.get(user) ?? 0) + nowMs - slotSinceMs,
			);
		if (end === "served") this.turns.worked(trip.place, nowMs);
		this.turns.finished(trip.place, nowMs, trip.isKept);
		done(trip);
		if (!isQuiet) this.#pump();
	}

	#send(trip: Trip): void {
		this.#running.add(trip);
		this.started += 1;
		trip.startedMs = this.nowMs;
		if (this.#conditions.isStrict === true) this.#checkStart(trip);
		this.ollama.send(trip.job);
	}

	/** Since when a load has been wanted. */
	#wantedSinceMs: number | undefined;
	#isPumping = false;
	#pump(): void {
		if (this.#isPumping) return;
		this.#isPumping = true;
		for (;;) {
			const place = this.turns.next(this.nowMs);
			if (place === undefined) break;
			const trip = this.#trips.get(place);
			assert.ok(trip !== undefined, "a request that is over was started");
			assert.ok(this.#waiting.delete(trip), "a request was started twice");
			this.#send(trip);
		}
		this.#isPumping = false;
		this.#watch();
		if (this.#conditions.isStrict === true) this.#check();
		this.#watchIdle();
		this.onEvent();
	}

	#watch(): void {
		this.#wake?.();
		this.#poll?.();
		this.#wake = undefined;
		this.#poll = undefined;
		const { nowMs, turns } = this;
		this.#wantedSinceMs = turns.wantsLoad
			? (this.#wantedSinceMs ?? nowMs)
			: undefined;
		if (turns.waiting === 0 && !turns.wantsLoad) return;
		const everyMs = pollEveryMs(this.#wantedSinceMs, nowMs);
		const pollAtMs = Math.max(nowMs, this.#askedMs + everyMs);
		if (!this.#isAsking && (this.#conditions.psMs ?? 1) < never)
			this.#poll = this.clock.at(pollAtMs, () => this.#ask());
		assert.ok(
			turns.waiting === 0 || turns.wakeMs > nowMs,
			"it is to be asked again at once",
		);
		if (turns.waiting > 0 && turns.wakeMs < never)
			this.#wake = this.clock.at(turns.wakeMs, () => this.#pump());
	}

	#ask(): void {
		const { psMs = 1 } = this.#conditions;
		if (this.#isAsking || psMs === never) return;
		this.#isAsking = true;
		const askedMs = this.nowMs;
		this.#askedMs = askedMs;
		this.clock.after(psMs / 2, () => {
			const { loaded } = this.ollama;
			this.clock.after(psMs / 2, () => {
				this.#isAsking = false;
				this.turns.loaded(loaded, this.nowMs, askedMs);
				this.#pump();
			});
		});
	}

	#watchIdle(): void {
		if (!this.ollama.isIdle || this.turns.waiting === 0) {
			if (this.#idleSinceMs !== undefined)
				this.longestIdleMs = Math.max(
					this.longestIdleMs,
					this.nowMs - this.#idleSinceMs,
				);
			this.#idleSinceMs = undefined;
		} else this.#idleSinceMs ??= this.nowMs;
		if (this.#idleSinceMs !== undefined)
			assert.ok(
				this.nowMs - this.#idleSinceMs <= longestPauseMs,
				"Ollama has nothing to do although something waits",
			);
	}

	/** What is sent to Ollama, just before. */
	#checkStart({ place }: Trip): void {
		const { model } = place;
		const { maxWaitMs } = { ...defaultSettings, ...this.#conditions.settings };
		if (this.nowMs < maxWaitMs[place.asked.priority])
			for (const other of this.#waiting)
				assert.ok(
					other.place.model !== model || other.place.rank >= place.rank,
					"a lower class went first",
				);
		const loading = [...this.turns.models].filter(
			({ loader }) => loader !== undefined,
		);
		assert.ok(loading.length <= 1, "two loads at once");
		if (model.loader === place || this.#conditions.mayVanish === true) return;
		assert.ok(
			this.ollama.has(model.key),
			"a model that is not loaded was taken to be",
		);
		const { isLoading, loaded, machine } = this.ollama;
		for (const { key } of loading)
			assert.ok(
				isLoading || loaded.has(key) || loaded.size < machine.room,
				"a model that has to go for a load is kept busy",
			);
	}

	#check(): void {
		assert.equal(this.turns.waiting, this.#waiting.size);
		assert.equal(this.turns.running, this.#running.size);
		assert.equal(
			this.trips.length,
			this.started + this.left + this.#waiting.size,
			"a request was lost",
		);
		checkTurns(this.turns, [...this.#waiting], [...this.#running]);
		const isLoading = [...this.turns.models].some(
			({ loader }) => loader !== undefined,
		);
		for (const model of this.turns.models)
			assert.ok(
				isLoading ||
					!model.isLoaded ||
					model.waiting === 0 ||
					model.running.size >= model.slots.known ||
					this.#isLeftFree(model),
				"something waits for a slot that is free",
			);
	}

	/**
	 * The last of four slots or more, while all others are one user's (or batch's),
	 * nobody else waits for it, and somebody was about in the last minute who would
	 * go first; and no longer than that user's requests take.
	 */
	#isLeftFree(model: Model): boolean {
		const { known } = model.slots;
		const running = [...this.#running].filter(
			({ place }) => place.model === model,
		);
		const waiting = [...this.#waiting].filter(
			({ place }) => place.model === model,
		);
		const rank = Math.min(...waiting.map(({ place }) => place.rank));
		const first = waiting.filter(({ place }) => place.rank === rank);
		const users = new Set(
			[...first, ...running].map(({ request }) => request.user),
		);
		const isBatch = [...first, ...running].every(
			({ request }) => request.priority === "batch",
		);
		const isAbout = (trip: Trip) =>
			trip.place.model === model &&
			this.nowMs <=
				60_000 + Math.max(trip.arrivedMs, trip.startedMs, trip.endedMs) &&
			(trip.place.rank < rank
				? isBatch || users.size === 1
				: trip.place.rank === rank &&
					users.size === 1 &&
					!users.has(trip.request.user));
		const longestMs = (user: string) =>
			Math.max(
				...this.trips
					.filter(({ end, request }) => end !== "" && request.user === user)
					.map(({ startedMs, endedMs }) => endedMs - startedMs),
			);
		return (
			known >= 4 &&
			running.length === known - 1 &&
			running.every(
				({ startedMs, request }) =>
					this.nowMs - startedMs <= longestMs(request.user),
			) &&
			this.trips.some(isAbout)
		);
	}
}

/** Everything that must hold between two events, whatever they are. */
export function checkTurns(
	turns: Turns,
	waiting: readonly Trip[],
	running: readonly Trip[],
): void {
	const models = [...turns.models];
	for (const model of models) checkModel(model);
	const stand = new Set(
		models.flatMap(({ lanes }) => lanes.flatMap((lane) => [...lane.arrivals])),
	);
	assert.deepEqual(stand, new Set(waiting.map(({ place }) => place)));
	const run = new Set(models.flatMap((model) => [...model.running]));
	assert.deepEqual(run, new Set(running.map(({ place }) => place)));
	for (const priority of priorities) {
		const isOf = ({ place }: Trip) => priorities[place.rank] === priority;
		const users = new Set<string>();
		for (const account of turns.accounts(priority)) {
			const ofUser = (trip: Trip) =>
				isOf(trip) && trip.request.user === account.user;
			assert.ok(!users.has(account.user), "two accounts of one user");
			users.add(account.user);
			assert.equal(account.waiting, waiting.filter(ofUser).length);
			const own = running.filter(ofUser);
			assert.equal(account.running, own.length);
			let chargedMs = 0;
			for (const { place } of own) {
				assert.equal(place.charge?.account, account);
				chargedMs += place.charge?.ms ?? 0;
			}
			assert.ok(Math.abs(account.pendingMs - chargedMs) < 1e-3, "charges");
			assert.ok(account.settledMs >= 0 && Number.isFinite(account.settledMs));
			const lines = models.flatMap(({ lanes }) =>
				lanes.flatMap(({ byUser }) => byUser.get(account.user) ?? []),
			);
			assert.deepEqual(
				account.standings ?? new Set(),
				new Set(lines.filter((line) => line.account === account)),
			);
		}
		for (const trip of [...waiting, ...running])
			if (isOf(trip)) assert.ok(users.has(trip.request.user), "no account");
	}
}

function checkModel(model: Model): void {
	assert.ok(model.running.size <= model.slots.known + 1, "too many run");
	if (model.loader !== undefined) {
		assert.equal(model.loader.state, "running");
		assert.ok([...model.running].includes(model.loader));
	}
	for (const place of model.running) assert.equal(place.state, "running");
	for (const lane of model.lanes) {
		const lines = [...lane.lines];
		assert.equal(lines.length, lane.byUser.size);
		let count = 0;
		for (const [index, line] of lines.entries()) {
			assert.equal(line.heapIndex, index);
			assert.ok(line.places.size > 0, "a line without a request");
			assert.equal(lane.byUser.get(line.account.user), line);
			count += line.places.size;
			const above = lines[(index - 1) >> 1];
			if (index > 0 && above !== undefined)
				assert.ok(!isBefore(line.account, above.account), "not a heap");
			for (const place of line.places) {
				assert.equal(place.line, line);
				assert.equal(place.state, "waiting");
			}
		}
		assert.equal(count, lane.arrivals.size);
	}
}

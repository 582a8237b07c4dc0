import type { Settings } from "../config/load.ts";
import { priorities } from "../priority.ts";
import type { Upstream } from "../upstream/client.ts";
import { silenceToDownMs } from "../upstream/hosts/health.ts";
import { Absence } from "./absence.ts";
import { CommonQueue } from "./common.ts";
import { DrainRate } from "./drainRate.ts";
import { FailedLoad } from "./failedLoad.ts";
import { lineUp } from "./inOrder.ts";
import { type Heard, LoadedPoll } from "./loadedPoll.ts";
import { type Place, unclearModel } from "./model.ts";
import {
	type ModelSource,
	OllamaModels,
	type Whereabouts,
} from "./ollamaModels.ts";
import type { ServiceElsewhere } from "./service.ts";
import {
	describeModels,
	nothingCounted,
	type QueueStats,
	waitingByClass,
} from "./stats.ts";
import { tellAhead } from "./tellAhead.ts";
import {
	type NoTurn,
	Ticket,
	type Waiter,
	type WaitersByUser,
} from "./ticket.ts";
import { Turns } from "./turns.ts";
import { mayBeWork, TryWatch } from "./watch.ts";

const maxNames = 1000;
type SourceOf = (upstream: () => Upstream) => ModelSource;

/** Holds the requests that wait for their turn at the GPU, asks Ollama what is loaded, and owns the timers. */
export class FairQueue {
	readonly counts = nothingCounted();
	/** Where other gates serve the same users. */
	elsewhere: ServiceElsewhere | undefined;
	/** Whether a reply of its Ollama goes on. Where nobody says, others find out that it is away. */
	isHeard: (() => boolean) | undefined;
	/** The Ollama that is in force. */
	upstream: () => Upstream;
	#settings: Settings["queue"];
	#turns: Turns;
	#models: ModelSource;
	readonly #sourceOf: SourceOf;
	/** Those that wait in a line. */
	readonly #tickets = new Map<Place, Ticket>();
	/** Their model is looked up. */
	readonly #lookups = new Set<Ticket>();
	readonly #kept = new Set<Ticket>();
	readonly #failed = new FailedLoad();
	readonly #waiters: WaitersByUser;
	/** What a model's key was called last. */
	readonly #nameOf = new Map<string, string>();
	readonly #rate = new DrainRate();
	readonly #tries = new TryWatch();
	#isPumping = false;
	readonly #look = () => this.#pump();
	readonly #poll: LoadedPoll;
	readonly #absence: Absence;
	#isClosed = false;

	/**
	 * @param common what it shares with the queues of other hosts
	 * @param sourceOf who knows its models
	 */
	constructor(
		settings: Settings["queue"],
		upstream: () => Upstream,
		common = new CommonQueue(),
		sourceOf: SourceOf = (from) => new OllamaModels(from),
	) {
		this.#settings = settings;
		this.upstream = upstream;
		this.#sourceOf = sourceOf;
		this.#waiters = common.waiters;
		this.#turns = new Turns(settings, common.fairness);
		this.#models = sourceOf(() => this.upstream());
		this.#poll = new LoadedPoll(
			() => this.#models,
			(heard, askedMs) => this.#heardLoaded(heard, askedMs),
			this.#look,
		);
		this.#absence = new Absence({
			isWanted: () => this.waiting > 0,
			isUp: async () => this.#isClosed || (await this.#models.isUp()),
			restarts: () => this.#turns.forget(),
			refuseAll: (why) => this.#refuseAll(why),
			look: this.#look,
		});
	}

	/** Counts what other gates serve, and tells them of what is served here. */
	shareWith(elsewhere: ServiceElsewhere): void {
		this.elsewhere = elsewhere;
		this.#turns.onServed = ({ rank, asked }, ms) => {
			const priority = priorities[rank];
			if (priority !== undefined) elsewhere.served(priority, asked.user, ms);
		};
		elsewhere.hear = (priority, user, ms) =>
			this.#turns.accounts(priority).hear(user, ms);
	}

	/** Requests that wait. */
	get waiting(): number {
		return this.#turns.waiting + this.#lookups.size;
	}

	/** Takes a request in. Its turn may come before this returns. */
	enter(waiter: Waiter): Ticket {
		const nowMs = performance.now();
		const ticket = new Ticket(this, waiter, nowMs);
		const { model } = waiter;
		// Each is told by itself that Ollama is away.
		if (this.#isClosed || this.#absence.isTold || model === "")
			this.#go(ticket);
		else if (model === undefined) this.#stand(ticket, unclearModel);
		else {
			const known = this.#models.known(model, nowMs);
			if (known === undefined) void this.#lookUp(ticket, model);
			else this.#direct(ticket, known, model);
		}
		return ticket;
	}

	answered(ticket: Ticket, status: number, isStream: boolean): void {
		const { place } = ticket;
		if (place === undefined || ticket.state !== "running") return;
		const { model } = place;
		const wasLoader = model.loader === place;
		if (wasLoader && status >= 400) {
			// Nothing says that the model is there; it has ended in a moment.
			ticket.wasRefused = true;
			if (status >= 500 && status !== 503)
				this.#refuseAll(
					{ kind: "load_failed", status },
					this.#failed.failed(place),
				);
			return;
		}
		const nowMs = performance.now();
		const isWork = wasLoader || mayBeWork(ticket, isStream, nowMs);
		this.#turns.firstByte(place, nowMs, status < 400 && isWork);
		this.#tries.begin(ticket);
		if (wasLoader) {
			this.#failed.loaded(model);
			this.counts.loads += 1;
			this.#poll.ask();
		}
		this.#pump();
	}

	end(ticket: Ticket, fault: "unreachable" | "died" | undefined): void {
		const { state, place } = ticket;
		if (state === "over") return;
		const nowMs = performance.now();
		const isKept = this.#kept.delete(ticket);
		ticket.state = "over";
		if (state === "waiting") {
			this.counts.left += 1;
			this.counts.waitedMs += nowMs - ticket.arrivedMs;
			this.#withdraw(ticket);
			ticket.waiter.left(nowMs - ticket.arrivedMs);
		} else if (place !== undefined) {
			const wasLoader = place.model.loader === place;
			this.#tries.end(ticket, this.#turns, nowMs);
			this.#turns.finished(place, nowMs, isKept);
			this.#rate.finished(nowMs);
			if (wasLoader) this.#poll.ask();
		}
		if (fault === "unreachable") this.#turns.forget();
		if (fault !== undefined) void this.#absence.lost();
		this.#pump();
	}

	abandon(ticket: Ticket): boolean {
		const { place } = ticket;
		const isLoader = place !== undefined && place.model.loader === place;
		if (ticket.state !== "running" || ticket.wasRefused || !isLoader) {
			this.end(ticket, undefined);
			return false;
		}
		ticket.keptUntilMs = performance.now() + this.#settings.loadGraceMs;
		this.#kept.add(ticket);
		return true;
	}

	/** Its host is down, as is known from elsewhere: all that wait hear it, unless `back` comes in five seconds. */
	away(): void {
		this.#absence.begins();
	}

	/**
	 * Its host answers again. What was with it when it went may never end.
	 *
	 * @param isHeard of which something has come since all the same
	 */
	back(isHeard: (place: Place) => boolean): void {
		const sinceMs = this.#absence.ends();
		if (sinceMs !== undefined)
			this.#turns.letGo(sinceMs, performance.now(), isHeard);
		this.#pump();
	}

	/** Looks after time: called at a fixed interval. */
	sweep(nowMs: number): void {
		this.#dropKept(({ keptUntilMs }) => nowMs >= keptUntilMs);
		if (this.waiting === 0) return;
		this.#tries.look(this.#turns, nowMs);
		this.#turns.tick(nowMs);
		tellAhead(this.#tickets.values(), nowMs, this.#settings.announceAfterMs);
		this.#pump();
	}

	/** Nobody waits for the reply to one that is kept, only for its load. */
	#dropKept(isDone: (ticket: Ticket) => boolean): void {
		for (const ticket of [...this.#kept])
			if (isDone(ticket)) ticket.waiter.dropLoad();
	}

	/** Puts other settings in force. Whatever waits keeps its place. */
	use(settings: Settings["queue"]): void {
		this.#settings = settings;
		this.#turns.use(settings);
		this.#pump();
	}

	/** There is another Ollama now. */
	upstreamChanged(): void {
		this.#turns.forget();
		this.#models = this.#sourceOf(() => this.upstream());
		this.#pump();
	}

	/** Takes no more part: whatever waits goes, and so does what comes. */
	open(): void {
		this.#isClosed = true;
		this.#absence.ends();
		this.#poll.stop();
		// Nobody looks after their time any more.
		this.#dropKept(() => true);
		for (const ticket of [...this.#lookups, ...this.#tickets.values()]) {
			if (ticket.state !== "waiting") continue;
			this.#withdraw(ticket);
			ticket.place = undefined;
			this.#go(ticket);
		}
	}

	/** Those that wait, at most so many of each model, and how many are likely to go before each. */
	lineUp(limit: number): Map<Ticket, number> {
		return lineUp(this.#turns.models, this.#tickets, limit);
	}

	/** The model that a request is for, as it was asked for last; `undefined` for what takes no turn. */
	modelOf({ place }: Ticket): string | undefined {
		return place && this.#nameOf.get(place.model.key);
	}

	stats(): QueueStats {
		return {
			waiting: waitingByClass(this.#turns.models),
			running: this.#turns.running,
			...this.counts,
			waitedMs: Math.round(this.counts.waitedMs),
			models: describeModels(this.#turns.models, this.#nameOf, this.#models),
		};
	}

	async #lookUp(ticket: Ticket, model: string): Promise<void> {
		this.#lookups.add(ticket);
		this.#waiters.add(ticket);
		await this.#models.read(performance.now());
		if (!this.#lookups.delete(ticket) || ticket.state !== "waiting") return;
		this.#waiters.delete(ticket);
		const known = this.#models.known(model, performance.now());
		// The list has been read anew, or cannot be had.
		this.#direct(ticket, known ?? { kind: "nowhere" }, model);
	}

	#direct(ticket: Ticket, whereabouts: Whereabouts, name: string): void {
		if (whereabouts.kind === "nowhere") this.#go(ticket);
		else if (whereabouts.kind === "unclear") this.#stand(ticket, unclearModel);
		else {
			if (this.#nameOf.size >= maxNames) this.#nameOf.clear();
			this.#nameOf.set(whereabouts.key, name);
			this.#stand(ticket, whereabouts.key);
		}
	}

	/** Puts a request into its line. */
	#stand(ticket: Ticket, model: string): void {
		const { user, share, priority, isStream } = ticket.waiter;
		const asked = { user, share, priority, model, isStream };
		if (this.#maySend) ticket.place = this.#turns.pass(asked, ticket.arrivedMs);
		if (ticket.place !== undefined) return void this.#go(ticket);
		const place = this.#turns.arrived(asked, ticket.arrivedMs);
		ticket.place = place;
		this.#tickets.set(place, ticket);
		this.#waiters.add(ticket);
		this.#pump();
		if (ticket.state !== "waiting") return;
		const { maxWaiting, maxWaitingPerUser } = this.#settings;
		const ofUser = this.#waiters.of(user);
		if (ofUser > maxWaitingPerUser)
			this.#refuseFull(ticket, "user_full", ofUser * this.#waiters.users);
		else if (this.#waiters.size > maxWaiting)
			this.#refuseFull(ticket, "full", this.waiting);
	}

	#refuseFull(ticket: Ticket, kind: "user_full" | "full", ahead: number): void {
		const retryAfterS = this.#rate.secondsFor(ahead, performance.now());
		this.#refuse(ticket, { kind, retryAfterS });
	}

	/** Takes a request that waits out of wherever it does. */
	#withdraw(ticket: Ticket): void {
		const { place } = ticket;
		this.#waiters.delete(ticket);
		if (this.#lookups.delete(ticket) || place === undefined) return;
		this.#turns.left(place);
		this.#tickets.delete(place);
	}

	#refuseAll(why: NoTurn, isMeant: (one: Ticket) => boolean = () => true) {
		for (const ticket of [...this.#lookups, ...this.#tickets.values()])
			if (isMeant(ticket)) this.#refuse(ticket, why);
	}

	#refuse(ticket: Ticket, why: NoTurn): void {
		if (ticket.state !== "waiting") return;
		ticket.state = "over";
		this.counts.refused += 1;
		this.#withdraw(ticket);
		ticket.waiter.refused(why, performance.now() - ticket.arrivedMs);
	}

	/** Whether Ollama is there, as far as is known, and there is a connection left. */
	get #maySend(): boolean {
		return this.#absence.isThere && !this.upstream().isFull;
	}

	/** Sends everything whose turn it is. */
	#pump(): void {
		if (this.#isPumping) return;
		// Nothing to start and nothing to look out for: so it is after most requests.
		const { waiting, wantsLoad } = this.#turns;
		if (waiting === 0 && !wantsLoad) return void this.#poll.rest();
		this.#isPumping = true;
		try {
			while (this.#maySend) {
				const place = this.#turns.next(performance.now());
				if (place === undefined) break;
				const ticket = this.#tickets.get(place);
				if (ticket === undefined) throw new Error("a place without a request");
				this.#tickets.delete(place);
				this.#waiters.delete(ticket);
				this.#go(ticket);
			}
		} finally {
			this.#isPumping = false;
		}
		if (this.upstream().isFull) this.upstream().whenRoom(this.#look);
		if (!this.#isClosed && !this.#absence.isAsked)
			this.#poll.watch(this.#turns, this.#maySend);
		else this.#poll.stop();
	}

	#heardLoaded(heard: Heard, askedMs: number): void {
		if (heard.keys !== undefined) this.#absence.answered();
		else if (this.#isDoubtful) {
			this.#poll.rest();
			void this.#absence.doubted();
		}
		if (!this.#absence.isAsked && heard.isKnown)
			this.#turns.loaded(heard.keys, performance.now(), askedMs);
		this.#dropKept(({ place }) => place?.model.loader !== place);
		this.#pump();
	}

	#go(ticket: Ticket): void {
		const waitedMs = performance.now() - ticket.arrivedMs;
		ticket.state = "running";
		this.counts.dispatched += 1;
		this.counts.waitedMs += waitedMs;
		ticket.waiter.go(waitedMs);
	}

	/** It has not said what is loaded. Where it has said nothing else for a minute, it may be away. */
	get #isDoubtful(): boolean {
		const isLong = this.#poll.silentMs >= silenceToDownMs;
		return (isLong || this.#absence.isSilent) && this.isHeard?.() === false;
	}
}

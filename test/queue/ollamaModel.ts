import { Heap, type Heaped } from "../../src/queue/heap.ts";

/** Something that happens at its time. */
interface Event extends Heaped {
	readonly atMs: number;
	readonly number: number;
	readonly happen: () => void;
}

/** Time that jumps from one event to the next. */
export class Clock {
	nowMs = 0;
	#planned = 0;
	readonly #events = new Heap<Event>((a, b) =>
		a.atMs === b.atMs ? a.number < b.number : a.atMs < b.atMs,
	);

	/** @returns what takes it back */
	at(atMs: number, happen: () => void): () => void {
		this.#planned += 1;
		const number = this.#planned;
		const event = { heapIndex: -1, atMs, number, happen };
		this.#events.add(event);
		return () => this.#events.delete(event);
	}

	after(delayMs: number, happen: () => void): () => void {
		return this.at(this.nowMs + delayMs, happen);
	}

	/** Lets the next event happen; false if there is none. */
	step(): boolean {
		const { first } = this.#events;
		if (first === undefined) return false;
		this.#events.delete(first);
		this.nowMs = first.atMs;
		first.happen();
		return true;
	}
}

export interface Machine {
	/** Models that can be loaded at once. */
	readonly room: number;
	/** OLLAMA_NUM_PARALLEL */
	readonly parallel: number;
	readonly loadMs: number;
	/** Whether the load of that number, from 0 on, comes to nothing. */
	failsToLoad?(load: number): boolean;
}

/** A request as Ollama has it. */
export interface Job {
	readonly model: string;
	/** From when it has a slot. */
	readonly firstByteMs: number;
	readonly serviceMs: number;
	readonly firstByte: () => void;
	readonly ended: () => void;
	/** Since when it has a slot. */
	slotSinceMs?: number;
	cancel?: () => void;
}

interface Runner {
	readonly model: string;
	readonly running: Set<Job>;
	readonly queue: Job[];
	idleSinceMs: number;
}

/**
 * Ollama's scheduler (server/sched.go), as far as the queue has to do with it.
 * Requests for a loaded model pass those that need a load. One load is made at
 * a time, and a model that has to go for it goes when it is idle; which one
 * that is has been decided before. A load ends with the request it is made for.
 */
export class OllamaModel {
	readonly #clock: Clock;
	machine: Machine;
	readonly #runners = new Map<string, Runner>();
	readonly #pending: Job[] = [];
	#loading: { readonly job: Job; readonly cancel: () => void } | undefined;
	#leaving: Runner | undefined;
	loads = 0;
	loadingMs = 0;
	/** Loads that were given up or have failed. */
	lostLoads = 0;

	constructor(clock: Clock, machine: Machine) {
		this.#clock = clock;
		this.machine = machine;
	}

	/** What /api/ps says. */
	get loaded(): ReadonlySet<string> {
		return new Set(this.#runners.keys());
	}

	get isLoading(): boolean {
		return this.#loading !== undefined;
	}

	/** It neither loads nor answers. */
	get isIdle(): boolean {
		return (
			this.#loading === undefined &&
			[...this.#runners.values()].every(({ running }) => running.size === 0)
		);
	}

	has(model: string): boolean {
		return this.#runners.has(model);
	}

	/** Requests for a model that it has, served and not. */
	heldFor(model: string): number {
		const runner = this.#runners.get(model);
		return (runner?.running.size ?? 0) + (runner?.queue.length ?? 0);
	}

	send(job: Job): void {
		const runner = this.#runners.get(job.model);
		if (runner !== undefined) this.#use(runner, job);
		else {
			this.#pending.push(job);
			this.#load();
		}
	}

	/** Its client is gone. */
	abort(job: Job): void {
		if (this.#loading?.job === job) {
			this.#loading.cancel();
			this.#loading = undefined;
			this.lostLoads += 1;
			this.#load();
			return;
		}
		const at = this.#pending.indexOf(job);
		if (at >= 0) {
			this.#pending.splice(at, 1);
			this.#load();
			return;
		}
		const runner = this.#runners.get(job.model);
		if (runner === undefined) return;
		const inQueue = runner.queue.indexOf(job);
		if (inQueue >= 0) runner.queue.splice(inQueue, 1);
		else this.#free(runner, job);
	}

	/** It goes as after its keep_alive; false while it is in use. */
	expire(model: string): boolean {
		const runner = this.#runners.get(model);
		if (runner === undefined || runner.running.size > 0) return false;
		this.#unload(runner);
		return true;
	}

	#use(runner: Runner, job: Job): void {
		if (runner.running.size >= this.machine.parallel) {
			runner.queue.push(job);
			return;
		}
		runner.running.add(job);
		job.slotSinceMs = this.#clock.nowMs;
		const undo = this.#clock.after(job.firstByteMs, job.firstByte);
		const undoEnd = this.#clock.after(job.serviceMs, () => {
			this.#free(runner, job);
			job.ended();
		});
		job.cancel = () => {
			undo();
			undoEnd();
		};
	}

	#free(runner: Runner, job: Job): void {
		if (!runner.running.delete(job)) return;
		job.cancel?.();
		const next = runner.queue.shift();
		if (next !== undefined) this.#use(runner, next);
		else if (runner.running.size === 0) {
			runner.idleSinceMs = this.#clock.nowMs;
			if (this.#leaving === runner) this.#unload(runner);
		}
	}

	#unload(runner: Runner): void {
		this.#runners.delete(runner.model);
		if (this.#leaving === runner) this.#leaving = undefined;
		this.#load();
	}

	#load(): void {
		for (;;) {
			const [job] = this.#pending;
			if (job === undefined || this.#loading || this.#leaving) return;
			const own = this.#runners.get(job.model);
			if (own !== undefined) {
				this.#pending.shift();
				this.#use(own, job);
				continue;
			}
			if (this.#runners.size >= this.machine.room) {
				this.#makeRoom();
				return;
			}
			this.#pending.shift();
			this.#begin(job);
			return;
		}
	}

	#makeRoom(): void {
		const byAge = [...this.#runners.values()].sort(
			(a, b) => a.idleSinceMs - b.idleSinceMs,
		);
		const idle = byAge.find(({ running }) => running.size === 0);
		this.#leaving = idle ?? byAge[0];
		if (idle !== undefined) this.#unload(idle);
	}

	#begin(job: Job): void {
		const { loadMs } = this.machine;
		const fails = this.machine.failsToLoad?.(this.loads) ?? false;
		this.loads += 1;
		const cancel = this.#clock.after(loadMs, () => {
			this.loadingMs += loadMs;
			this.#loading = undefined;
			if (fails) {
				this.lostLoads += 1;
				job.ended();
			} else {
				const { model } = job;
				const runner: Runner = {
					...{ model, running: new Set(), queue: [], idleSinceMs: 0 },
				};
				this.#runners.set(model, runner);
				this.#use(runner, job);
			}
			this.#load();
		});
		this.#loading = { job, cancel };
	}
}

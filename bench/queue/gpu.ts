import type { Clock } from "./clock.ts";

/** The machine that Ollama has. */
export interface GpuSettings {
	/** How many models fit into memory: OLLAMA_MAX_LOADED_MODELS. */
	readonly room: number;
	/** OLLAMA_NUM_PARALLEL. */
	readonly parallel: number;
	readonly loadMs: number;
}

/** A request as Ollama has it. */
export interface Job {
	readonly model: string;
	/** How long it takes once it has a slot, as long as no more than the slots are in use. */
	readonly serviceMs: number;
	/** It has a slot, so that its first byte comes. */
	began(): void;
	ended(): void;
}

interface Runner {
	running: number;
	readonly queue: Job[];
	idleSinceMs: number;
}

/**
 * Ollama's scheduler (server/sched.go) in simulated time: a request for a
 * loaded model goes to its runner, which takes them as they come; one that needs
 * a load waits until a runner has fallen idle, however many pass it by then.
 */
export class Gpu {
	readonly #clock: Clock;
	readonly #settings: GpuSettings;
	readonly #runners = new Map<string, Runner>();
	readonly #pending: Job[] = [];
	#loading: string | undefined;
	/** Loads so far. */
	loads = 0;
	/** Time that requests had a slot, a slot each. */
	servedMs = 0;
	/** Told what is loaded, when that has changed. */
	onLoaded: (models: ReadonlySet<string>) => void = () => {};

	constructor(clock: Clock, settings: GpuSettings) {
		this.#clock = clock;
		this.#settings = settings;
	}

	get parallel(): number {
		return this.#settings.parallel;
	}

	/** Whether a request for a model would have a slot at once. */
	isFree(model: string): boolean {
		const runner = this.#runners.get(model);
		return (
			this.#loading === undefined &&
			this.#pending.length === 0 &&
			runner !== undefined &&
			runner.running < this.#settings.parallel
		);
	}

	/** Whether a request waits for a load. */
	get isLoading(): boolean {
		return this.#pending.length > 0;
	}

	send(job: Job): void {
		const runner = this.#runners.get(job.model);
		if (runner !== undefined) this.#put(runner, job);
		else {
			this.#pending.push(job);
			this.#load();
		}
	}

	#put(runner: Runner, job: Job): void {
		const isFree =
			runner.running < this.#settings.parallel && runner.queue.length === 0;
		if (isFree) this.#begin(runner, job);
		else runner.queue.push(job);
	}

	#begin(runner: Runner, job: Job): void {
		runner.running += 1;
		this.#clock.after(job.serviceMs, () => {
			this.servedMs += job.serviceMs;
			runner.running -= 1;
			// What waits for it to be idle is quicker than whoever hears of its end.
			if (runner.running === 0 && runner.queue.length === 0) {
				runner.idleSinceMs = this.#clock.nowMs;
				this.#load();
			}
			job.ended();
			if (runner.running >= this.#settings.parallel) return;
			const next = runner.queue.shift();
			if (next !== undefined) this.#begin(runner, next);
		});
		job.began();
	}

	/** Loads what has waited longest, if there is room or a runner that is idle. */
	#load(): void {
		const [first] = this.#pending;
		if (first === undefined || this.#loading !== undefined) return;
		const { model } = first;
		if (this.#runners.size >= this.#settings.room && !this.#evict()) return;
		this.#loading = model;
		this.loads += 1;
		this.#clock.after(this.#settings.loadMs, () => {
			this.#loading = undefined;
			const runner: Runner = { running: 0, queue: [], idleSinceMs: 0 };
			this.#runners.set(model, runner);
			this.#tellLoaded();
			const own = this.#pending.filter((job) => job.model === model);
			const others = this.#pending.filter((job) => job.model !== model);
			this.#pending.splice(0, Infinity, ...others);
			for (const job of own) this.#put(runner, job);
			this.#load();
		});
	}

	/** The one that has been idle longest goes. */
	#evict(): boolean {
		let oldest: [string, Runner] | undefined;
		for (const [model, runner] of this.#runners) {
			const isIdle = runner.running === 0 && runner.queue.length === 0;
			if (isIdle && runner.idleSinceMs < (oldest?.[1].idleSinceMs ?? Infinity))
				oldest = [model, runner];
		}
		if (oldest === undefined) return false;
		this.#runners.delete(oldest[0]);
		this.#tellLoaded();
		return true;
	}

	#tellLoaded(): void {
		this.onLoaded(new Set(this.#runners.keys()));
	}
}

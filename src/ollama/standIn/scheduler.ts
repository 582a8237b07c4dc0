import { EventEmitter, once } from "node:events";
import { setTimeout as delay } from "node:timers/promises";

/**
 * Which models are loaded, and whose turn it is, as Ollama decides it
 * (server/sched.go). One request at a time may cause a load. The others wait
 * behind it, even those for a third model, and they alone count as its queue.
 * A request for a loaded model passes them all, so that as long as such
 * requests come, the model that has to go never falls idle.
 */
export interface Scheduler {
	/**
	 * Waits until the model is loaded and gives its runner.
	 *
	 * @throws QueueFull when too many wait for a load
	 * @throws Gone when the client leaves before; a load that it caused is given up
	 */
	runnerFor(wish: Wish): Promise<Runner>;
	/** Unloads a model as soon as nobody uses it (`keep_alive: 0` without a prompt). */
	unload(file: string): void;
	/** Ends a model's runner as a crash does: what it generates breaks off. */
	kill(file: string): void;
	/** What is loaded, the one that stays longest first. */
	loaded(): readonly Runner[];
	/** How many wait for a load, the one that it is made for not counted. */
	waiting(): number;
	/** `loading` when a load begins, `loaded` and `unloaded` when that is done. */
	readonly events: EventEmitter<
		Record<"loading" | "loaded" | "unloaded", [string]>
	>;
	close(): void;
}

export interface SchedulerSettings {
	/** OLLAMA_NUM_PARALLEL: requests that one model serves at once. */
	readonly parallel: number;
	/** OLLAMA_MAX_LOADED_MODELS */
	readonly maxLoadedModels: number;
	/** OLLAMA_MAX_QUEUE: requests that wait for a load. */
	readonly maxQueue: number;
	/** OLLAMA_KEEP_ALIVE */
	readonly keepAliveMs: number;
	/** How long it takes to load a model. */
	readonly loadMs: number;
}

/** What a request needs of the scheduler. */
export interface Wish {
	/** Names of one model file share a runner. */
	readonly file: string;
	/** The name in `/api/ps`. */
	readonly name: string;
	/** The options that a runner is started with. Another set loads the model anew. */
	readonly launchOptions: string;
	readonly contextLength: number;
	/** How long the model stays after its last use; what was before holds if it is not given. */
	readonly keepAliveMs: number | undefined;
	/** Aborted when the request is over: it was answered, or its client left. */
	readonly signal: AbortSignal;
}

/** A loaded model. */
export interface Runner {
	readonly file: string;
	readonly name: string;
	readonly contextLength: number;
	/** When it goes, on Date.now()'s clock. */
	readonly expiresAtMs: number;
	/** It has crashed: nothing more comes of it. */
	readonly isDead: boolean;
	/** What it was asked last, whose prompt it remembers. */
	lastAsked: Buffer | undefined;
	/** Waits for a free slot, first come first served, and gives back what frees it. */
	slot(signal: AbortSignal): Promise<() => void>;
}

/** So many wait for a load that Ollama takes no more. */
export class QueueFull extends Error {}
/** The client left before its turn came. */
export class Gone extends Error {}

interface OwnRunner extends Runner {
	launchOptions: string;
	keepAliveMs: number;
	expiresAtMs: number;
	users: number;
	timer: NodeJS.Timeout | undefined;
	isDead: boolean;
}

interface Waiting {
	readonly wish: Wish;
	readonly found: PromiseWithResolvers<Runner>;
}

/** No timer of Node's runs longer. */
const longestTimerMs = 2 ** 31 - 1;

/** Starts with nothing loaded. */
export function createScheduler(settings: SchedulerSettings): Scheduler {
	const runners = new Map<string, OwnRunner>();
	const events: Scheduler["events"] = new EventEmitter();
	events.setMaxListeners(0);
	const queue: Waiting[] = [];
	let isBusy = false;
	let isClosed = false;

	function runnerFor(wish: Wish): Promise<Runner> {
		const found = Promise.withResolvers<Runner>();
		const runner = runners.get(wish.file);
		if (runner !== undefined && fits(runner, wish))
			use(runner, { wish, found });
		else if (isBusy && queue.length >= settings.maxQueue)
			found.reject(
				new QueueFull(
					"server busy, please try again.  maximum pending requests exceeded",
				),
			);
		else {
			queue.push({ wish, found });
			if (!isBusy) void workOff();
		}
		// Nobody is told of a client that left; Ollama looks again only when its turn comes.
		return Promise.race([found.promise, gone(wish.signal)]);
	}

	/** processPending: one after the other, however long the one takes. */
	async function workOff(): Promise<void> {
		isBusy = true;
		for (let next = queue.shift(); next !== undefined; next = queue.shift())
			if (!next.wish.signal.aborted) await admit(next);
		isBusy = false;
	}

	async function admit(waiting: Waiting): Promise<void> {
		const { wish } = waiting;
		while (!isClosed) {
			const own = runners.get(wish.file);
			if (own !== undefined && fits(own, wish)) return use(own, waiting);
			const leaving =
				own ??
				(runners.size >= settings.maxLoadedModels ? whichGoes() : undefined);
			if (leaving === undefined) return load(waiting);
			// It goes when nobody uses it. A request that comes meanwhile and names a keep_alive keeps it.
			const unloaded = once(events, "unloaded");
			expire(leaving);
			await unloaded;
		}
	}

	async function load({ wish, found }: Waiting): Promise<void> {
		events.emit("loading", wish.file);
		if (settings.loadMs > 0)
			await delay(settings.loadMs, undefined, { signal: wish.signal }).catch(
				() => {},
			);
		if (wish.signal.aborted || isClosed)
			return found.reject(new Gone("the client left while the model loaded"));
		const runner = startRunner(wish);
		runners.set(wish.file, runner);
		events.emit("loaded", wish.file);
		use(runner, { wish, found });
	}

	function startRunner(wish: Wish): OwnRunner {
		return {
			file: wish.file,
			name: wish.name,
			launchOptions: wish.launchOptions,
			contextLength: wish.contextLength,
			keepAliveMs: settings.keepAliveMs,
			expiresAtMs: 0,
			users: 0,
			timer: undefined,
			isDead: false,
			lastAsked: undefined,
			slot: createSlots(settings.parallel),
		};
	}

	function use(runner: OwnRunner, { wish, found }: Waiting): void {
		runner.users += 1;
		stopTimer(runner);
		if (wish.keepAliveMs !== undefined) runner.keepAliveMs = wish.keepAliveMs;
		runner.expiresAtMs = Date.now() + runner.keepAliveMs;
		const leave = () => {
			runner.users -= 1;
			if (runner.users > 0) return;
			if (runner.keepAliveMs <= 0) return unloadNow(runner);
			stopTimer(runner);
			runner.expiresAtMs = Date.now() + runner.keepAliveMs;
			runner.timer = setTimeout(
				() => unloadNow(runner),
				Math.min(runner.keepAliveMs, longestTimerMs),
			).unref();
		};
		if (wish.signal.aborted) leave();
		else wish.signal.addEventListener("abort", leave, { once: true });
		found.resolve(runner);
	}

	/** findRunnerToUnload: an idle one, or else the one that would stay the shortest. */
	function whichGoes(): OwnRunner | undefined {
		const byStay = [...runners.values()].sort(
			(a, b) => a.keepAliveMs - b.keepAliveMs || (a.name < b.name ? -1 : 1),
		);
		return byStay.find(({ users }) => users === 0) ?? byStay[0];
	}

	function expire(runner: OwnRunner): void {
		stopTimer(runner);
		runner.keepAliveMs = 0;
		if (runner.users === 0) unloadNow(runner);
	}

	function unloadNow(runner: OwnRunner): void {
		stopTimer(runner);
		if (runners.get(runner.file) !== runner) return;
		runners.delete(runner.file);
		events.emit("unloaded", runner.file);
	}

	return {
		runnerFor,
		unload(file) {
			const runner = runners.get(file);
			if (runner !== undefined) expire(runner);
		},
		kill(file) {
			const runner = runners.get(file);
			if (runner !== undefined) runner.isDead = true;
		},
		loaded: () =>
			[...runners.values()].sort((a, b) => b.expiresAtMs - a.expiresAtMs),
		waiting: () => queue.length,
		events,
		close() {
			isClosed = true;
			for (const runner of runners.values()) stopTimer(runner);
			events.emit("unloaded", "");
		},
	};
}

/** needsReload, the other way round. */
function fits(runner: OwnRunner, wish: Wish): boolean {
	return runner.launchOptions === wish.launchOptions && !runner.isDead;
}

function stopTimer(runner: OwnRunner): void {
	clearTimeout(runner.timer);
	runner.timer = undefined;
}

/** A semaphore as Ollama's runner has one: nothing bounds how many wait. */
function createSlots(count: number): Runner["slot"] {
	let free = count;
	const waiting: { go(): void }[] = [];
	const release = () => {
		free += 1;
		const next = waiting.shift();
		if (next !== undefined) {
			free -= 1;
			next.go();
		}
	};
	return (signal) => {
		if (signal.aborted) return gone(signal);
		if (free > 0) {
			free -= 1;
			return Promise.resolve(release);
		}
		const turn = Promise.withResolvers<() => void>();
		const place = { go: () => turn.resolve(release) };
		waiting.push(place);
		const leave = () => {
			const at = waiting.indexOf(place);
			if (at !== -1) waiting.splice(at, 1);
			turn.reject(new Gone("the client left while it waited"));
		};
		signal.addEventListener("abort", leave, { once: true });
		return turn.promise.finally(() =>
			signal.removeEventListener("abort", leave),
		);
	};
}

/** Rejects when the client leaves. */
function gone(signal: AbortSignal): Promise<never> {
	return new Promise((_resolve, reject) => {
		const leave = () => reject(new Gone("the client left"));
		if (signal.aborted) leave();
		else signal.addEventListener("abort", leave, { once: true });
	});
}

import type { Host } from "./host.ts";
import { lookAt } from "./look.ts";

/** How often a host is asked: while all is well, while it is down, and while that is to be found out. */
const usualMs = 3_000;
const downMs = 2_000;
const doubtMs = 500;
/** Several gates, or hosts, are not to ask in step. */
const jitter = 0.25;
/** How old the list of its models may be; what is loaded is asked for each time. */
const catalogMs = 10_000;
/** A list that is as new as this, or the failure to get one, is not asked for once more for a model that is not in it: a client may ask for such again and again. */
const newsMs = 2_000;

/** Asks one host again and again how it is and what it has. */
export class Prober {
	readonly #host: Host;
	readonly #random: () => number;
	/** Whether requests with it show that it is alive. */
	readonly #isHeard: () => boolean;
	#timer: NodeJS.Timeout | undefined;
	/** When it was last asked for its models, whatever came of that. */
	#listedAtMs: number | undefined;
	/** Since that was begun something has happened that may have changed them. */
	#isOutdated = false;
	/** That has brought no list. */
	#hasFailed = false;
	#isAsking = false;
	#isListing = false;
	/** Who waits for that list. */
	readonly #waiting: (() => void)[] = [];
	#again = false;
	#isStopped = false;

	constructor(
		host: Host,
		isHeard: () => boolean,
		random: () => number = Math.random,
	) {
		this.#host = host;
		this.#isHeard = isHeard;
		this.#random = random;
	}

	/** Asks at once. @param anew also which models there are */
	soon(anew = false): void {
		if (anew) this.#isOutdated = true;
		if (this.#isAsking) this.#again = true;
		else void this.#round();
	}

	/**
	 * Ends once the host has said which models it has, or has failed to.
	 *
	 * @returns `undefined` for one that has just said so, or does not answer anyway
	 */
	news(): Promise<void> | undefined {
		const isFirst = this.#listedAtMs === undefined;
		if (this.#isStopped || (!isFirst && this.#host.health.state !== "up"))
			return undefined;
		if (!this.#isListing) {
			if (!this.#isOutdated && !this.#isOld(newsMs)) return undefined;
			this.soon(true);
		}
		return new Promise((resolve) => {
			this.#waiting.push(resolve);
		});
	}

	#isOld(ms: number): boolean {
		const { NEGATIVE_INFINITY } = Number;
		return performance.now() - (this.#listedAtMs ?? NEGATIVE_INFINITY) > ms;
	}

	stop(): void {
		this.#isStopped = true;
		clearTimeout(this.#timer);
		this.#tell();
	}

	#tell(): void {
		for (const resolve of this.#waiting.splice(0)) resolve();
	}

	async #round(): Promise<void> {
		if (this.#isStopped) return;
		clearTimeout(this.#timer);
		this.#isAsking = true;
		this.#again = false;
		const isDue =
			this.#isOutdated ||
			this.#host.health.state !== "up" ||
			this.#isOld(this.#hasFailed ? newsMs : catalogMs);
		this.#isListing = isDue;
		if (isDue) this.#isOutdated = false;
		const { asking, catalog } = this.#host;
		const event = await lookAt(this.#host, isDue);
		// What is said to a key that a reload has replaced says nothing of the new one.
		const isStale = asking !== this.#host.asking;
		this.#isAsking = false;
		this.#isListing = false;
		// It may have been taken out of the configuration meanwhile.
		if (this.#isStopped) return;
		const isUnheard = event.kind !== "silent" || !this.#isHeard();
		if (isUnheard && !isStale) this.#host.note(event);
		if (isDue) {
			this.#listedAtMs = performance.now();
			if (!this.#isOutdated || this.#host.health.state !== "up") this.#tell();
			// It may have answered that it was asked too often: that is not to have it asked more.
			this.#hasFailed = this.#host.catalog === catalog;
		}
		const restMs = this.#again ? 0 : this.#restMs();
		this.#timer = setTimeout(() => void this.#round(), restMs);
		this.#timer.unref();
	}

	#restMs(): number {
		const { state } = this.#host.health;
		const meanMs =
			state === "up" ? usualMs : state === "down" ? downMs : doubtMs;
		return meanMs * (1 + jitter * (2 * this.#random() - 1));
	}
}

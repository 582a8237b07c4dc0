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

/** Asks one host again and again how it is and what it has. */
export class Prober {
	readonly #host: Host;
	readonly #random: () => number;
	/** Whether requests with it show that it is alive. */
	readonly #isHeard: () => boolean;
	#timer: NodeJS.Timeout | undefined;
	#catalogAtMs = Number.NEGATIVE_INFINITY;
	#isAsking = false;
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
		if (anew) this.#catalogAtMs = Number.NEGATIVE_INFINITY;
		if (this.#isAsking) this.#again = true;
		else void this.#round();
	}

	stop(): void {
		this.#isStopped = true;
		clearTimeout(this.#timer);
	}

	async #round(): Promise<void> {
		if (this.#isStopped) return;
		clearTimeout(this.#timer);
		this.#isAsking = true;
		this.#again = false;
		const isDue =
			this.#host.health.state !== "up" ||
			performance.now() - this.#catalogAtMs > catalogMs;
		const { asking } = this.#host;
		const event = await lookAt(this.#host, isDue);
		// What is said to a key that a reload has replaced says nothing of the new one.
		const isStale = asking !== this.#host.asking;
		if (isDue && !isStale && event.kind === "answered")
			this.#catalogAtMs = performance.now();
		this.#isAsking = false;
		// It may have been taken out of the configuration meanwhile.
		if (this.#isStopped) return;
		const isUnheard = event.kind !== "silent" || !this.#isHeard();
		if (isUnheard && !isStale) this.#host.note(event);
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

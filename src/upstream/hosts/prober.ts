import { type Answer, ask } from "../ask.ts";
import type { UpstreamFault } from "../client.ts";
import {
	type Catalog,
	catalogPaths,
	isVersion,
	readCatalog,
	readLoaded,
} from "./catalog.ts";
import type { HostEvent } from "./health.ts";
import type { Host } from "./host.ts";

/** How often a host is asked: while all is well, while it is down, and while that is to be found out. */
const usualMs = 3_000;
const downMs = 2_000;
const doubtMs = 500;
/** Several gates, or hosts, are not to ask in step. */
const jitter = 0.25;
const answerMs = 3_000;
/** How old the list of its models may be; what is loaded is asked for each time. */
const catalogMs = 10_000;
const maxListBytes = 4 * 2 ** 20;
const maxVersionBytes = 64 * 1024;

/** These are the gate's own troubles. */
const ownFaults = new Set(["EMFILE", "ENFILE", "EADDRNOTAVAIL", "ENOBUFS"]);

/** What a fault says of the host; `undefined` for nothing. */
export function eventOf({
	kind,
	detail,
}: UpstreamFault): HostEvent | undefined {
	if (ownFaults.has(detail)) return undefined;
	return { kind: kind === "garbage" ? "nonsense" : kind, why: detail };
}

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
		const event = await this.#look();
		this.#isAsking = false;
		// It may have been taken out of the configuration meanwhile.
		if (this.#isStopped) return;
		const isUnheard = event.kind !== "silent" || !this.#isHeard();
		if (isUnheard) this.#host.note(event);
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

	async #look(): Promise<HostEvent> {
		const host = this.#host;
		if (host.kind === "openai") {
			const catalog = await this.#readCatalog();
			if (!isCatalog(catalog)) return catalog;
			host.learn(catalog, undefined);
			return { kind: "answered" };
		}
		const version = await this.#ask("/api/version", maxVersionBytes);
		if (version.kind !== "answer") return version.event;
		if (!isVersion(version.text))
			return { kind: "nonsense", why: "answers, but not as Ollama does" };
		if (!host.isLocal && !version.headers.includes("x-request-id"))
			return {
				kind: "nonsense",
				why: "is a bare Ollama, with no llamagate in front of it",
			};
		let catalog: Catalog | undefined;
		if (
			host.health.state !== "up" ||
			performance.now() - this.#catalogAtMs > catalogMs
		) {
			const read = await this.#readCatalog();
			if (!isCatalog(read)) return read;
			catalog = read;
			this.#catalogAtMs = performance.now();
		}
		const loaded = await this.#ask("/api/ps", maxListBytes);
		if (loaded.kind !== "answer") return loaded.event;
		const files = readLoaded(loaded.text);
		if (files === undefined)
			return { kind: "nonsense", why: "says in no list what is loaded" };
		host.learn(catalog, files);
		return { kind: "answered" };
	}

	async #readCatalog(): Promise<Catalog | HostEvent> {
		const { kind } = this.#host;
		const answer = await this.#ask(catalogPaths[kind], maxListBytes);
		if (answer.kind !== "answer") return answer.event;
		return (
			readCatalog(answer.text, kind) ?? {
				kind: "nonsense",
				why: "says in no list which models it has",
			}
		);
	}

	/** A good answer, or what else it says of the host. */
	async #ask(
		path: string,
		maxBytes: number,
	): Promise<
		| Extract<Answer, { kind: "answer" }>
		| { readonly kind: "event"; readonly event: HostEvent }
	> {
		const { asking } = this.#host;
		const answer = await ask(asking, path, { timeoutMs: answerMs, maxBytes });
		if (answer.kind === "answer" && answer.status === 200) return answer;
		return { kind: "event", event: describe(answer, path) };
	}
}

function isCatalog(read: Catalog | HostEvent): read is Catalog {
	return !("kind" in read);
}

function describe(answer: Answer, path: string): HostEvent {
	switch (answer.kind) {
		case "silent":
			return { kind: "silent" };
		case "too long":
			return { kind: "nonsense", why: `its answer to ${path} has no end` };
		case "failed":
			return eventOf(answer.fault) ?? { kind: "silent" };
		case "answer":
			return describeStatus(answer.status, path);
	}
}

function describeStatus(status: number, path: string): HostEvent {
	if (status === 401)
		return { kind: "nonsense", why: "does not take this gate's key (401)" };
	if (status === 403)
		return {
			kind: "nonsense",
			why: "refuses this gate's key to read (403); it needs the scopes read and infer",
		};
	// The gate there is well, and what is behind it is not.
	if (status === 502 || status === 504)
		return { kind: "unreachable", why: `its Ollama is away (${status})` };
	// It loads, or has too much to do.
	if (status === 429 || status >= 500) return { kind: "silent" };
	return { kind: "nonsense", why: `answers ${path} with ${status}` };
}

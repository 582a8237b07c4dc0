import type { Settings } from "../../config/load.ts";
import {
	type HostKind,
	type HostSettings,
	isOnThisMachine,
} from "../../config/upstreams.ts";
import {
	type ModelPattern,
	parseModelName,
	parseModelPattern,
} from "../../ollama/modelName.ts";
import { Upstream } from "../client.ts";
import { type Catalog, catalogKey } from "./catalog.ts";
import type { Candidate } from "./chooseHost.ts";
import {
	type Health,
	type HostEvent,
	nextHealth,
	unknownHealth,
} from "./health.ts";
import { Outage } from "./outage.ts";

/** Tells a host that a request comes from another gate: it is not sent on to a third. */
export const hopHeader = "x-llamagate-hop";

/** What a load is taken to cost. */
const guessedLoadMs = 15_000;
/** What a request is taken to need before one has ended, and how much each that ends counts. */
const firstGuessMs = 1_000;
const newestPart = 0.1;
/** How long a model that a request was sent for counts as loaded before the host says so. */
const expectedMs = 30_000;
const maxExpected = 1_000;
/** How long a call that it did not know is left to others. */
const unknownMs = 60_000;
const maxCalls = 1_000;

/** What a host's part in its requests has been, since the start. */
export interface HostCounts {
	requests: number;
	/** That failed there, wherever they went then. */
	failed: number;
	/** That went on to another host. */
	moved: number;
}

/** One of several hosts: how it is reached, what is known of it, and what it has to do. */
export class Host {
	readonly name: string;
	readonly kind: HostKind;
	settings: HostSettings;
	/** On this machine, rather than behind the gate of another. */
	readonly isLocal: boolean;
	readonly hasKey: boolean;
	/** There is another gate in front of it. */
	readonly isBehindGate: boolean;
	upstream: Upstream;
	/** For the gate's own questions, which wait for no place. Another one has another key, or other limits. */
	asking: Upstream;
	/** What those two go by. */
	#key: string | undefined;
	#limits: Settings["upstream"];
	health: Health;
	/** What its owner was told of that. */
	readonly outage = new Outage();
	/** `undefined` until it has said what it has. */
	catalog: Catalog | undefined;
	/** How many requests a minute its gate lets this one make, as it said last; `undefined` if it does not say. */
	perMinute: number | undefined;
	#loaded: ReadonlySet<string> | undefined;
	readonly #expected = new Map<string, number>();
	/** Calls that it has turned out not to know, and until when that counts; those that it has answered well. */
	readonly #unknownCalls = new Map<string, number>();
	readonly #knownCalls = new Set<string>();
	/** Requests that are with it or wait for it. */
	outstanding = 0;
	readonly counts: HostCounts = { requests: 0, failed: 0, moved: 0 };
	#meanMs = firstGuessMs;
	#patterns: readonly ModelPattern[] | undefined;
	readonly #changed: (host: Host, before: Health) => void;

	/** @param changed is called when its state has changed */
	constructor(
		settings: HostSettings,
		limits: Settings["upstream"],
		key: string | undefined,
		changed: (host: Host, before: Health) => void,
	) {
		const { name, kind, target, models } = settings;
		this.settings = settings;
		this.name = name;
		this.kind = kind;
		this.hasKey = key !== undefined;
		// A socket for which there is a key leads to another machine's gate.
		this.isLocal =
			isOnThisMachine(target) && !(target.kind === "unix" && this.hasKey);
		this.isBehindGate = this.hasKey && (kind === "ollama" || !this.isLocal);
		this.#key = key;
		this.#limits = limits;
		this.upstream = new Upstream({ ...limits, target }, ownHeaders(key));
		this.asking = openAsking(target, limits, key);
		this.health = unknownHealth(performance.now());
		this.#patterns = patternsOf(models);
		this.#changed = changed;
	}

	/** Whether an entry means this host, with whichever of its keys and whatever is to go there. */
	isSame(
		{ name, kind, target }: HostSettings,
		key: string | undefined,
	): boolean {
		return (
			name === this.name &&
			kind === this.kind &&
			JSON.stringify(target) === JSON.stringify(this.settings.target) &&
			// Without one it is reached otherwise, and another kind of host.
			(key !== undefined) === this.hasKey
		);
	}

	/**
	 * Puts another entry of the same host in force. What is known of it stays, what
	 * runs goes on, and what waits keeps its place.
	 *
	 * @returns whether it is reached otherwise, so that it is to be asked
	 */
	use(
		settings: HostSettings,
		limits: Settings["upstream"],
		key: string | undefined,
	): boolean {
		this.settings = settings;
		this.#patterns = patternsOf(settings.models);
		const { connectTimeoutMs, maxConnections } = this.#limits;
		if (
			key === this.#key &&
			limits.connectTimeoutMs === connectTimeoutMs &&
			limits.maxConnections === maxConnections
		)
			return false;
		this.#key = key;
		this.#limits = limits;
		this.upstream.use(limits, ownHeaders(key));
		this.asking.retire();
		this.asking = openAsking(settings.target, limits, key);
		return true;
	}

	/** It is where these connections lead: what runs on them counts as its own. */
	takeOver(upstream: Upstream): void {
		this.upstream = upstream;
		upstream.use(this.#limits, ownHeaders(this.#key));
	}

	/** Something has happened that says how it is. */
	note(event: HostEvent): void {
		const before = this.health;
		this.health = nextHealth(before, event, performance.now());
		if (before.state === this.health.state) return;
		// It may be another program by now.
		if (before.state === "down") {
			this.#unknownCalls.clear();
			this.#knownCalls.clear();
		}
		this.#changed(this, before);
	}

	/** What it says of itself. @param loaded `undefined` if all that it has is */
	learn(catalog: Catalog | undefined, loaded: ReadonlySet<string> | undefined) {
		if (catalog !== undefined) this.catalog = catalog;
		this.#loaded = loaded;
		for (const file of loaded ?? []) this.#expected.delete(file);
	}

	/** Whether its entry leaves it this model. */
	mayHave(model: string): boolean {
		if (this.#patterns === undefined) return true;
		const name = parseModelName(model);
		return (
			name !== undefined && this.#patterns.some((matches) => matches(name))
		);
	}

	/** Whether it has a model; `undefined` while it has not said. */
	hasModel(model: string): boolean | undefined {
		if (!this.mayHave(model)) return false;
		return this.catalog?.has(catalogKey(model, this.kind));
	}

	/**
	 * Whether it may be the one that a model is to be had from: its list has it, or
	 * it has not said yet what it has. Any Ollama may reach one that runs at ollama.com.
	 */
	mayHold(model: string): boolean {
		return (
			this.hasModel(model) !== false ||
			(this.kind === "ollama" && isOfCloud(model) && this.mayHave(model))
		);
	}

	/** What answers with a key may be a bare Ollama until it was looked at once. */
	get hasShownItself(): boolean {
		return !this.hasKey || this.catalog !== undefined;
	}

	/**
	 * Whether a request for this model may go there. An Ollama says itself that it
	 * does not have one. Another server may answer with whatever it runs, to a key
	 * that may not use that, so it gets what names one that it has and nothing else.
	 *
	 * @param model as a body names it; empty or `undefined` where that says nothing
	 */
	mayGet(model: string | undefined): boolean {
		const isNamed = model !== undefined && model !== "";
		if (!this.hasShownItself) return false;
		if (this.kind === "openai") return isNamed && this.hasModel(model) === true;
		return !isNamed || this.mayHave(model);
	}

	/**
	 * It has answered a call for a model as one that it does not know. Once it has
	 * answered such a call well, that says something of the one request alone.
	 */
	lacks(route: string, model: string | undefined, nowMs: number): void {
		const call = callOf(route, model);
		if (this.#knownCalls.has(call)) return;
		if (this.#unknownCalls.size >= maxCalls) this.#unknownCalls.clear();
		this.#unknownCalls.set(call, nowMs + unknownMs);
	}

	/** It has answered a call for a model. */
	serves(route: string, model: string | undefined): void {
		const call = callOf(route, model);
		if (this.#knownCalls.has(call)) return;
		if (this.#knownCalls.size >= maxCalls) this.#knownCalls.clear();
		this.#knownCalls.add(call);
		this.#unknownCalls.delete(call);
	}

	knows(route: string, model: string | undefined, nowMs: number): boolean {
		if (this.#unknownCalls.size === 0) return true;
		return (this.#unknownCalls.get(callOf(route, model)) ?? 0) <= nowMs;
	}

	/** @param model as a body names it; empty or `undefined` where that says nothing */
	asCandidate(
		route: string,
		model: string | undefined,
		nowMs: number,
	): Candidate {
		const named = model === undefined || model === "" ? undefined : model;
		return {
			state: this.health.state,
			weight: this.settings.weight,
			hasModel: named === undefined ? true : this.hasModel(named),
			knowsRoute: this.knows(route, model, nowMs),
			isLoaded: named === undefined || this.#isLoaded(named, nowMs),
			waitingMs: this.outstanding * this.#meanMs,
			loadMs: guessedLoadMs,
			isTried: this.health.state === "half-open" && this.outstanding > 0,
		};
	}

	#isLoaded(model: string, nowMs: number): boolean {
		if (this.kind === "openai" || this.#loaded === undefined) return true;
		const file = this.#fileOf(model);
		return this.#loaded.has(file) || (this.#expected.get(file) ?? 0) > nowMs;
	}

	#fileOf(model: string): string {
		const key = catalogKey(model, this.kind);
		return this.catalog?.get(key) ?? key;
	}

	/** A request goes there. */
	enter(model: string | undefined, nowMs: number): void {
		this.outstanding += 1;
		this.counts.requests += 1;
		if (model === undefined || model === "" || this.kind === "openai") return;
		if (this.#expected.size >= maxExpected) this.#expected.clear();
		this.#expected.set(this.#fileOf(model), nowMs + expectedMs);
	}

	/** It is there no more. @param serviceMs what it took of the GPU's time; `undefined` if that says nothing */
	leave(serviceMs: number | undefined): void {
		this.outstanding -= 1;
		if (serviceMs !== undefined)
			this.#meanMs += newestPart * (serviceMs - this.#meanMs);
	}

	sweep(nowMs: number): void {
		this.upstream.sweep(nowMs);
		this.asking.sweep(nowMs);
	}
}

/** What each request to a host begins with, of the gate's own. */
function ownHeaders(key: string | undefined): readonly string[] {
	return key === undefined
		? []
		: ["authorization", `Bearer ${key}`, hopHeader, "1"];
}

function openAsking(
	target: HostSettings["target"],
	limits: Settings["upstream"],
	key: string | undefined,
): Upstream {
	const connectTimeoutMs = Math.min(limits.connectTimeoutMs, 2_000);
	return new Upstream({ ...limits, target, connectTimeoutMs }, ownHeaders(key));
}

function patternsOf(
	models: HostSettings["models"],
): readonly ModelPattern[] | undefined {
	return models?.map((text) => parseModelPattern(text) ?? (() => false));
}

function isOfCloud(model: string): boolean {
	return parseModelName(model)?.cloud === true;
}

function callOf(route: string, model = ""): string {
	return `${route} ${model}`;
}

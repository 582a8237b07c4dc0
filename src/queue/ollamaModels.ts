import {
	formatModelName,
	type ModelName,
	parseModelName,
} from "../ollama/modelName.ts";
import { askForModels, askUpstream } from "../upstream/ask.ts";
import type { Upstream } from "../upstream/client.ts";

/** A name that was not in a list so fresh is not a model's. */
const freshMs = 250;
/** A list that is older is read anew when one of its names is used. */
const staleMs = 10_000;
/** How long an Ollama that lists nothing is not asked again. */
const failedRestMs = 10_000;
/** Spellings of names that are remembered, and names of loaded models. */
const maxAsked = 1_000;

/** Where a request for a model goes. */
export type Whereabouts =
	/** It runs here. Names of one model have one key. */
	| { readonly kind: "here"; readonly key: string }
	/** Ollama might read its name in a way of its own. */
	| { readonly kind: "unclear" }
	/** It takes no turn: Ollama lacks the model, or it runs elsewhere, and Ollama says so at once. */
	| { readonly kind: "nowhere" };

const nowhere: Whereabouts = { kind: "nowhere" };
const unclear: Whereabouts = { kind: "unclear" };

/** Who knows which models there are, and which are loaded. */
export interface ModelSource {
	known(name: string, nowMs: number): Whereabouts | undefined;
	read(nowMs: number): Promise<void>;
	loaded(): Promise<ReadonlySet<string> | undefined>;
	/** What a model's key is called where it was loaded; `undefined` if it was not seen loaded. */
	nameOf(key: string): string | undefined;
	isUp(): Promise<boolean>;
}

/** What Ollama says of its models: which there are (`/api/tags`), and which are loaded (`/api/ps`). */
export class OllamaModels implements ModelSource {
	readonly #upstream: () => Upstream;
	/** By name. */
	#names = new Map<string, Whereabouts>();
	/** The same, by names as they were asked for. */
	readonly #asked = new Map<string, Whereabouts>();
	/** Of models that were seen loaded, by their keys: others than this gate's clients may have asked for them. */
	readonly #loadedAs = new Map<string, string>();
	#readAtMs = Number.NEGATIVE_INFINITY;
	#failedAtMs = Number.NEGATIVE_INFINITY;
	#reading: Promise<void> | undefined;

	constructor(upstream: () => Upstream) {
		this.#upstream = upstream;
	}

	/** What is known of a model without asking; `undefined` if Ollama is to be asked first. */
	known(name: string, nowMs: number): Whereabouts | undefined {
		const asked = this.#asked.get(name);
		if (asked === undefined) return this.#look(name, nowMs);
		if (nowMs - this.#readAtMs > staleMs) void this.read(nowMs);
		return asked;
	}

	#look(name: string, nowMs: number): Whereabouts | undefined {
		const parsed = parseModelName(name);
		if (parsed === undefined) return unclear;
		if (parsed.cloud) return nowhere;
		const full = spell(parsed);
		const found = this.#names.get(full);
		if (found !== undefined) {
			if (nowMs - this.#readAtMs > staleMs) void this.read(nowMs);
			if (this.#asked.size >= maxAsked) this.#asked.clear();
			this.#asked.set(name, found);
			return found;
		}
		if (nowMs - this.#readAtMs < freshMs) return nowhere;
		// Nobody says which models there are.
		if (nowMs - this.#failedAtMs < failedRestMs)
			return { kind: "here", key: full };
		return undefined;
	}

	/** Reads the names anew. Two who ask at once are answered by one look. */
	read(nowMs: number): Promise<void> {
		this.#reading ??= this.#readNames(nowMs).finally(() => {
			this.#reading = undefined;
		});
		return this.#reading;
	}

	/** The keys of the models that are loaded; `undefined` if Ollama does not say. */
	async loaded(): Promise<ReadonlySet<string> | undefined> {
		const entries = await askForModels(this.#upstream(), "/api/ps");
		return entries && new Set(entries.flatMap((entry) => this.#note(entry)));
	}

	#note(entry: Record<string, unknown>): string[] {
		const key = keyOf(entry);
		if (key === undefined) return [];
		const { name } = entry;
		const parsed = typeof name === "string" ? parseModelName(name) : undefined;
		if (parsed !== undefined) {
			if (this.#loadedAs.size >= maxAsked) this.#loadedAs.clear();
			this.#loadedAs.set(key, formatModelName(parsed));
		}
		return [key];
	}

	nameOf(key: string): string | undefined {
		return this.#loadedAs.get(key);
	}

	/** Whether Ollama answers. */
	async isUp(): Promise<boolean> {
		return (await askUpstream(this.#upstream(), "/api/version")) !== undefined;
	}

	async #readNames(nowMs: number): Promise<void> {
		const entries = await askForModels(this.#upstream(), "/api/tags");
		if (entries === undefined) {
			this.#failedAtMs = nowMs;
			return;
		}
		const names = new Map<string, Whereabouts>();
		for (const entry of entries) {
			const name = fullName(entry.name);
			const key = keyOf(entry);
			if (name === undefined || key === undefined) continue;
			const isElsewhere =
				typeof entry.remote_host === "string" && entry.remote_host !== "";
			names.set(name, isElsewhere ? nowhere : { kind: "here", key });
		}
		this.#names = names;
		this.#asked.clear();
		this.#readAtMs = performance.now();
	}
}

function fullName(name: unknown): string | undefined {
	const parsed = typeof name === "string" ? parseModelName(name) : undefined;
	return parsed && spell(parsed);
}

function spell({ host, namespace, model, tag }: ModelName): string {
	return `${host}/${namespace}/${model}:${tag}`;
}

/** A digest where there is one, as a model can have many names. */
function keyOf({ digest, name }: Record<string, unknown>): string | undefined {
	return typeof digest === "string" && digest !== "" ? digest : fullName(name);
}

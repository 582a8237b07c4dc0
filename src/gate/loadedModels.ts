import { type LoadedModel, maxLiveEntries } from "../admin/live.ts";

/** A watcher looks more often than a model comes and goes. */
const freshMs = 2_000;

type Entries = readonly {
	readonly host?: string;
	readonly entry: Readonly<Record<string, unknown>>;
}[];

/** What Ollama has loaded, asked for when it is wanted, and at most every two seconds. */
export class LoadedModels {
	readonly #entries: () => Promise<Entries | undefined>;
	#askedAtMs = Number.NEGATIVE_INFINITY;
	#answer: Promise<LoadedModel[] | null> = Promise.resolve(null);

	/** @param entries asks for those of `/api/ps`, with their host where there are several */
	constructor(entries: () => Promise<Entries | undefined>) {
		this.#entries = entries;
	}

	/** At most `maxLiveEntries`; null if Ollama does not say. */
	list(nowMs: number): Promise<LoadedModel[] | null> {
		if (nowMs - this.#askedAtMs >= freshMs) {
			this.#askedAtMs = nowMs;
			this.#answer = this.#ask();
		}
		return this.#answer;
	}

	async #ask(): Promise<LoadedModel[] | null> {
		const entries = await this.#entries();
		return (
			entries?.slice(0, maxLiveEntries).map(({ host, entry }) => ({
				name: typeof entry.name === "string" ? entry.name : "?",
				...(host !== undefined && { host }),
				sizeBytes: amount(entry.size),
				vramBytes: amount(entry.size_vram),
				expiresAt:
					typeof entry.expires_at === "string" &&
					!Number.isNaN(Date.parse(entry.expires_at))
						? entry.expires_at
						: null,
			})) ?? null
		);
	}
}

function amount(value: unknown): number {
	return typeof value === "number" && Number.isFinite(value) ? value : 0;
}

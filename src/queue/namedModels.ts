import { askUpstream } from "../upstream/ask.ts";
import type { Upstream } from "../upstream/client.ts";
import type { ModelSource, Whereabouts } from "./ollamaModels.ts";

/** The models of a server that speaks OpenAI's calls alone: it does not say what is loaded, and changes nothing by itself. */
export class NamedModels implements ModelSource {
	readonly #upstream: () => Upstream;

	constructor(upstream: () => Upstream) {
		this.#upstream = upstream;
	}

	known(name: string): Whereabouts {
		return { kind: "here", key: name };
	}

	async read(): Promise<void> {}

	async loaded(): Promise<undefined> {
		return undefined;
	}

	nameOf(key: string): string {
		return key;
	}

	async isUp(): Promise<boolean> {
		return (await askUpstream(this.#upstream(), "/v1/models")) !== undefined;
	}
}

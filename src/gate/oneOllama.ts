import type { FairQueue } from "../queue/queue.ts";
import type { Upstream } from "../upstream/client.ts";

/**
 * The one Ollama, and where requests wait for it. They stay with it where a reload
 * puts several hosts in its place: what these may be sent is not for it to say.
 */
export class OneOllama {
	/** A reload that gives it another address puts another there: what is not sent goes to that. */
	upstream: Upstream;
	/** `undefined` if they do not wait. */
	queue: FairQueue | undefined;

	constructor(upstream: Upstream) {
		this.upstream = upstream;
	}

	get name(): string {
		return this.upstream.name;
	}
}

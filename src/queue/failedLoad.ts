import type { Model, Place } from "./model.ts";
import type { Ticket } from "./ticket.ts";

/**
 * The load that failed last. It may be for what one user asked of it, so the
 * requests of others hear it only from a second user's load.
 */
export class FailedLoad {
	#last: { readonly model: Model; readonly user: string } | undefined;

	/** A load has failed. Returns which of those that wait are to hear it. */
	failed({ model, asked: { user } }: Place): (ticket: Ticket) => boolean {
		const isForAll = this.#last?.model === model && this.#last.user !== user;
		this.#last = { model, user };
		return ({ place, waiter }) =>
			place?.model === model && (isForAll || waiter.user === user);
	}

	/** The model is loaded after all. */
	loaded(model: Model): void {
		if (this.#last?.model === model) this.#last = undefined;
	}
}

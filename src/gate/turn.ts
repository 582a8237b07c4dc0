import { type Priority, priorities } from "../priority.ts";
import type { FairQueue } from "../queue/queue.ts";
import type { NoTurn, Ticket, Waiter } from "../queue/ticket.ts";
import type { Facts } from "./bodyFacts.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";
import { userOf } from "./user.ts";

/** Step 6b: a request of an inference route waits for its turn at the GPU. */

/** Says how long a request has waited, in milliseconds. */
export const queueHeader = "x-llamagate-queue-ms";

/** What becomes of a request that waits. */
export interface Turn {
	go(): void;
	refuse(refusal: Refusal): void;
	/** Its reply is a stream, and may tell how many are ahead of it. */
	stillWaits(ahead: number): void;
	/** The load that it was kept for has had its time: nothing goes on upstream. */
	stop(): void;
}

/** Takes a place in the queue. The turn may come before this returns. */
export function waitForTurn(
	exchange: Exchange,
	facts: Facts,
	queue: FairQueue,
	turn: Turn,
): Ticket {
	const priority = priorityOf(exchange, queue);
	const { id, share } = userOf(exchange);
	const user = queue.elsewhere?.nameOf(id) ?? id;
	return queue.enter(
		new WaitingExchange(exchange, { user, share }, facts, priority, turn),
	);
}

/** A request as the queue sees it. A class: functions of its own would be made anew for each. */
class WaitingExchange implements Waiter {
	readonly user: string;
	readonly share: number;
	readonly priority: Priority;
	readonly model: string | undefined;
	readonly isStream: boolean;
	readonly #exchange: Exchange;
	readonly #turn: Turn;

	constructor(
		exchange: Exchange,
		{ user, share }: Pick<Waiter, "user" | "share">,
		{ model, isStream }: Facts,
		priority: Priority,
		turn: Turn,
	) {
		this.user = user;
		this.share = share;
		this.priority = priority;
		this.model = model;
		this.isStream = isStream;
		this.#exchange = exchange;
		this.#turn = turn;
	}

	get pieces(): number {
		return this.#exchange.piecesOut;
	}

	get hasTokens(): boolean {
		const { usage, reply } = this.#exchange;
		const { tokensIn = 0, tokensOut = 0 } = usage ?? reply?.usage() ?? {};
		if (tokensOut > 0 || (reply?.untoldTokens() ?? 0) > 0) return true;
		// Of an embedding there are those of its input alone.
		return !this.isStream && tokensIn > 0;
	}

	go(waitedMs: number): void {
		const queueMs = this.#count(waitedMs);
		this.#exchange.replyHeaders.push(queueHeader, String(Math.round(queueMs)));
		this.#turn.go();
	}

	refused(why: NoTurn, waitedMs: number): void {
		this.#count(waitedMs);
		this.#turn.refuse(describe(why, this.model));
	}

	left(waitedMs: number): void {
		this.#count(waitedMs);
	}

	/** Returns how long it has waited in all: it may have waited for another host before. */
	#count(waitedMs: number): number {
		const queueMs = (this.#exchange.queueMs ?? 0) + waitedMs;
		this.#exchange.queueMs = queueMs;
		return queueMs;
	}

	stillWaits(ahead: number): void {
		if (this.isStream) this.#turn.stillWaits(ahead);
	}

	dropLoad(): void {
		this.#turn.stop();
	}
}

/** The key's class, or a lower one that the request asks for. */
function priorityOf(
	{ head, knownCredential, isDemoted }: Exchange,
	queue: FairQueue,
): Priority {
	if (isDemoted) return "batch";
	const own = knownCredential.key.priority;
	const [asked] = head.priority;
	if (asked === undefined) return own;
	const rank = priorities.indexOf(asked.trim().toLowerCase() as Priority);
	if (rank >= priorities.indexOf(own)) return priorities[rank] ?? own;
	queue.counts.ignoredPriorities += 1;
	return own;
}

function describe(why: NoTurn, model: string | undefined): Refusal {
	switch (why.kind) {
		case "user_full":
			return {
				status: 429,
				reason: "queue_full",
				message: "too many of your requests wait for their turn already",
				headers: ["retry-after", String(why.retryAfterS)],
			};
		case "full":
			return {
				status: 503,
				reason: "queue_full",
				message: "too many requests wait for their turn already",
				headers: ["retry-after", String(why.retryAfterS)],
			};
		case "load_failed":
			return {
				status: 502,
				reason: "upstream_load_failed",
				message: `Ollama could not load the model${model === undefined ? "" : ` ${JSON.stringify(model)}`}: it answered the request before this one with ${why.status}`,
			};
		case "unreachable":
			return {
				status: 502,
				reason: "upstream_unreachable",
				message: "Ollama went away while this request waited for its turn",
				headers: ["retry-after", "5"],
			};
	}
}

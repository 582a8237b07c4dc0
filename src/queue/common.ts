import { priorities } from "../priority.ts";
import { Fairness } from "./fairness.ts";
import { WaitersByUser } from "./ticket.ts";

/**
 * What the queues of several hosts have in common: what each user has had, in
 * each class, wherever that was; and who waits. With one host it is the queue's own.
 */
export class CommonQueue {
	/** One for each class: a user's requests of two classes do not compete. */
	readonly fairness = priorities.map(() => new Fairness());
	readonly waiters = new WaitersByUser();
}

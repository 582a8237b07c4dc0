import type { Priority } from "../priority.ts";
import { isQueueStatus, isText } from "./client.ts";
import type { QueueStatus } from "./status.ts";

/** Requests that are listed; all are counted. */
export const maxTopRequests = 200;

/** Who is at work now and who waits. Never a prompt, a header or a key. */
export interface GateTop {
	readonly version: string;
	/** Requests that have not ended and wait for no turn, and those that wait for one. */
	readonly atWork: number;
	readonly waiting: number;
	/** Absent where nobody has to wait. */
	readonly queue?: QueueStatus;
	/** What is at work, the oldest first; then what waits, the next first. At most `maxTopRequests`. */
	readonly requests: readonly TopRequest[];
}

export interface TopRequest {
	/** The same as `reqId` in the log, and the reply's `x-request-id`. */
	readonly id: string;
	/** Whose turn it is, as in the ledger; of a person no more than `log.people` lets the log say. */
	readonly user: string;
	/** The key's name, or `(login)`: as in the log. */
	readonly key: string;
	/** As in the log; absent unless `log.people` is set and a person was proved. */
	readonly person?: string;
	/** The device's name. */
	readonly node: string | null;
	/** The host that it is with or waits for, of several; absent where there is one Ollama, and before one is chosen. */
	readonly host?: string;
	readonly route: string;
	/** As it was asked for and Ollama has it, or as the reply calls it; null until either is known. */
	readonly model: string | null;
	/** Null for what takes no turn. */
	readonly priority: Priority | null;
	/** `receiving`: its body is still to come. `loading`: Ollama loads the model for it. */
	readonly state: "receiving" | "waiting" | "loading" | "running";
	/** How many are likely to go before it; null for what does not wait, and while its model is looked up. */
	readonly ahead: number | null;
	/** Milliseconds since it came. */
	readonly ageMs: number;
	/** How long it has waited for its turn, in milliseconds. */
	readonly waitedMs: number | null;
	/** Since it was sent to Ollama, and since the first byte of the reply, in milliseconds. */
	readonly runsMs: number | null;
	readonly repliesMs: number | null;
	/** Pieces of the reply that were passed on, of a stream about one a token; null for what makes no tokens. */
	readonly pieces: number | null;
}

/** Whether this is what a gate says of who is at work. */
export function isGateTop(said: GateTop): boolean {
	const { version, atWork, waiting, queue, requests } = (said ?? {}) as GateTop;
	return (
		isText(version) &&
		[atWork, waiting].every(isNumber) &&
		(queue === undefined || isQueueStatus(queue)) &&
		Array.isArray(requests) &&
		requests.every(isTopRequest)
	);
}

function isTopRequest(value: unknown): value is TopRequest {
	const row = (value ?? {}) as TopRequest;
	const orNull = <T>(part: T | null, is: (part: unknown) => boolean) =>
		part === null || is(part);
	return (
		[row.id, row.user, row.key, row.route, row.state].every(isText) &&
		[row.person, row.host].every(
			(part) => part === undefined || isText(part),
		) &&
		[row.node, row.model, row.priority].every((part) => orNull(part, isText)) &&
		isNumber(row.ageMs) &&
		[row.ahead, row.waitedMs, row.runsMs, row.repliesMs, row.pieces].every(
			(part) => orNull(part, isNumber),
		)
	);
}

function isNumber(value: unknown): value is number {
	return typeof value === "number";
}

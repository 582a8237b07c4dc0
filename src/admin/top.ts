import type { Priority } from "../priority.ts";
import { askDaemon, isQueueStatus, isText } from "./client.ts";
import type { QueueStatus } from "./status.ts";

/** Requests that `GET /top` of the admin socket lists; it counts all. */
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
	/** The key's name. */
	readonly key: string;
	/** As in the log; absent unless `log.people` is set and a person was proved. */
	readonly person?: string;
	/** The device's name. */
	readonly node: string | null;
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

/** What became of asking the running gate. */
export type AskedTop =
	| { readonly kind: "top"; readonly top: GateTop }
	| {
			/** Nobody answers; or it may not be asked; or it is another version. */
			readonly kind: "silent" | "denied" | "strange";
			readonly why: string;
	  };

/** Asks the running gate who is at work. @param socket its admin socket */
export async function askTopOn(socket: string): Promise<AskedTop> {
	const { status, body, code } = await askDaemon(socket, "GET /top");
	if (code === "EACCES")
		return { kind: "denied", why: `only root may ask the gate on ${socket}` };
	if (status === 0)
		return { kind: "silent", why: `no gate answers on ${socket} (${code})` };
	if (status === 404)
		return {
			kind: "strange",
			why: `the gate on ${socket} is older than this program and does not say who is at work; restart it: systemctl restart llamagate`,
		};
	const top = status === 200 ? readTop(body) : undefined;
	return top === undefined
		? {
				kind: "strange",
				why: `what answers on ${socket} is not a gate of this version (status ${status})`,
			}
		: { kind: "top", top };
}

function readTop(body: string): GateTop | undefined {
	try {
		const said = JSON.parse(body) as GateTop;
		return isGateTop(said) ? said : undefined;
	} catch {
		// What is not JSON is not the gate's.
		return undefined;
	}
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
		(row.person === undefined || isText(row.person)) &&
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

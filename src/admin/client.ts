import { request } from "../net/http.ts";
import { priorities } from "../priority.ts";
import type {
	GateStatus,
	LockedOut,
	QueuedModel,
	QueueStatus,
} from "./status.ts";

/** No answer of a daemon's is longer, nor takes longer. */
const answerBytes = 16 * 2 ** 20;
const answerMs = 30_000;

/**
 * Asks a running daemon through its socket. Root asks, and an attacker who has taken the
 * daemon over may answer: without an end, for one.
 *
 * @param line such as `POST /reload`
 * @returns its answer; status 0 and the system's code if there is none
 */
export function askDaemon(
	path: string,
	line: string,
): Promise<{ status: number; body: string; code?: string }> {
	const [method, url] = line.split(" ");
	return new Promise((resolve) => {
		const fail = ({ code, message }: NodeJS.ErrnoException) =>
			resolve({ status: 0, body: "", code: code ?? message });
		const req = request(
			{
				socketPath: path,
				method,
				path: url,
				timeout: 5_000,
				signal: AbortSignal.timeout(answerMs),
			},
			(res) => {
				let body = "";
				res.setEncoding("utf8");
				res.on("data", (chunk: string) => {
					body += chunk;
					if (body.length > answerBytes)
						res.destroy(new Error("its answer has no end"));
				});
				res.on("end", () => resolve({ status: res.statusCode ?? 0, body }));
				res.on("error", fail);
			},
		);
		req.on("timeout", () => req.destroy(new Error("no answer in 5 s")));
		req.on("error", fail);
		req.end();
	});
}

/** What became of asking the running gate. */
export type Asked =
	| { readonly kind: "status"; readonly status: GateStatus }
	| {
			/** Nobody answers; or it may not be asked; or what answers is not a gate. */
			readonly kind: "silent" | "denied" | "strange";
			readonly why: string;
	  };

/** Asks the running gate about itself. @param socket its admin socket */
export async function askGateOn(socket: string): Promise<Asked> {
	const { status, body, code } = await askDaemon(socket, "GET /status");
	if (code === "EACCES")
		return { kind: "denied", why: `only root may ask the gate on ${socket}` };
	if (status === 0)
		return { kind: "silent", why: `no gate answers on ${socket} (${code})` };
	const told = status === 200 ? readAnswer(body, isGateStatus) : undefined;
	return told === undefined
		? {
				kind: "strange",
				why: strangeAt(socket, status),
			}
		: { kind: "status", status: told };
}

/**
 * Asks the running gate whether its rules were read from files that held what is
 * marked so (`NotedRules`).
 *
 * @returns `undefined` where it does not say; an older gate does not know the question
 */
export async function askWhetherHas(
	socket: string,
	mark: string,
): Promise<boolean | undefined> {
	const { status, body } = await askDaemon(socket, `GET /has?mark=${mark}`);
	return status === 200
		? readAnswer<{ has: boolean }>(body, ({ has }) => typeof has === "boolean")
				?.has
		: undefined;
}

/** What is said of an answer that is none of a gate's of this version. */
export function strangeAt(socket: string, status: number): string {
	return `what answers on ${socket} is not a gate of this version (status ${status})`;
}

/**
 * Reads what a daemon has answered, whatever answers in its place.
 *
 * @param isOne whether it has all that is looked at; it may throw at what is no object
 * @returns `undefined` for what is none
 */
export function readAnswer<T>(
	body: string,
	isOne: (said: T) => boolean,
): T | undefined {
	try {
		const said = JSON.parse(body) as T;
		return isOne(said) ? said : undefined;
	} catch {
		// What is not JSON is not the gate's.
		return undefined;
	}
}

function isGateStatus(said: GateStatus): boolean {
	const { version, pid, startedAt, listening, keys, lastReload } = said;
	return (
		[version, startedAt, lastReload?.at].every(isText) &&
		[listening, keys].every(
			(list) => Array.isArray(list) && list.every(isText),
		) &&
		[pid, said.connections, said.streams, said.lockedOut].every(
			(number) => typeof number === "number",
		) &&
		(said.files === undefined ||
			[said.files?.config, said.files?.keys].every(isText)) &&
		(said.restart === undefined ||
			(Array.isArray(said.restart) && said.restart.every(isText))) &&
		(said.lockouts === undefined ||
			(Array.isArray(said.lockouts) && said.lockouts.every(isLockedOut))) &&
		(said.queue === undefined || isQueueStatus(said.queue)) &&
		typeof said.keyUse === "object" &&
		said.keyUse !== null
	);
}

/** Whether this is one entry of `lockouts`. */
export function isLockedOut(value: unknown): value is LockedOut {
	const { addresses, node, secondsLeft } = (value ?? {}) as LockedOut;
	return (
		Array.isArray(addresses) &&
		addresses.every(isText) &&
		(node === null || isText(node)) &&
		typeof secondsLeft === "number"
	);
}

/** Whether this is what a gate says of its queue. */
export function isQueueStatus(value: unknown): value is QueueStatus {
	const { waiting, running, models } = (value ?? {}) as QueueStatus;
	return (
		priorities.every((name) => typeof waiting?.[name] === "number") &&
		typeof running === "number" &&
		Array.isArray(models) &&
		models.every(isQueuedModel)
	);
}

function isQueuedModel(value: unknown): value is QueuedModel {
	const model = (value ?? {}) as QueuedModel;
	return (
		[model.name, model.state].every(isText) &&
		(model.host === undefined || isText(model.host)) &&
		[model.slots, model.running, model.waiting].every(
			(number) => typeof number === "number",
		)
	);
}

export function isText(value: unknown): value is string {
	return typeof value === "string";
}

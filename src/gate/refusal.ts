import type { ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { STATUS_CODES } from "../net/http.ts";
import { errorBody } from "../ollama/errors.ts";
import type { Family } from "../ollama/routes.ts";
import type { Connection } from "./connection.ts";
import type { Exchange, Outcome } from "./exchange.ts";
import { closeUnlessComplete, linger } from "./linger.ts";
import { sendPlain } from "./plainReply.ts";
import { bodyLengthOf } from "./route.ts";

/** A decision against a request. It becomes a reply here and nowhere else. */
export interface Refusal {
	readonly status: number;
	/** A fixed word for the log and the counters; nothing from the client. */
	readonly reason: string;
	/** What the client is told: what happened and what to do. */
	readonly message: string;
	/** Names and values in turn. */
	readonly headers?: readonly string[];
	/** A word for programs, in the reply's body. */
	readonly code?: string;
}

/** What a client may still send of its body and yet keep its connection. */
const shortRestBytes = 64 * 1024;
/**
 * Refusals that a connection may collect before anybody has shown a good key on
 * it: as many as its address gets at once. With a hundred, the new connections
 * took a tenth of what a flood costs.
 */
const maxRefusals = 1_000;

/**
 * The headers of a refusal. A key that is refused stays so for a while, and
 * there are clients that repeat a 401 ten times; the OpenAI and Anthropic SDKs
 * heed `x-should-retry` (their client's shouldRetry).
 */
function headersOf({ status, headers = [] }: Refusal): readonly string[] {
	return status === 401 || status === 403
		? [...headers, "x-should-retry", "false"]
		: headers;
}

/** A refusal's body. */
interface Body {
	readonly status: number;
	readonly code: string | undefined;
	readonly text: string;
	readonly sizeBytes: number;
	/** The refusal's own, and all of them. */
	readonly own: Refusal["headers"];
	readonly headers: readonly string[];
}

/** Bodies by their messages: most are said again and again, and what a client wrote is in few of them. */
const bodies: Readonly<Record<Family, Map<string, Body>>> = {
	native: new Map(),
	openai: new Map(),
	anthropic: new Map(),
};
const maxBodies = 100;
const longestKept = 200;

function bodyOf(family: Family, refusal: Refusal): Body {
	const { status, message, code, headers: own } = refusal;
	const known = bodies[family];
	const found = known.get(message);
	const isSame = found?.status === status && found.code === code;
	if (isSame && found.own === own) return found;
	const text = isSame ? found.text : errorBody(family, status, message, code);
	const sizeBytes = Buffer.byteLength(text);
	const headers = [
		...["content-type", "application/json"],
		...["content-length", String(sizeBytes)],
		...headersOf(refusal),
	];
	const made = { status, code, text, sizeBytes, own, headers };
	if (message.length <= longestKept) {
		if (known.size >= maxBodies) known.clear();
		known.set(message, made);
	}
	return made;
}

/** Answers with a refusal in the family's error shape and closes the account. */
export function sendRefusal(exchange: Exchange, refusal: Refusal): void {
	const { req, res } = exchange;
	if (exchange.ended) return;
	if (res.headersSent) {
		// Something else has begun to answer. Cut, nobody takes that for whole.
		exchange.reason = refusal.reason;
		exchange.end("cut");
		req.socket.destroy();
		return;
	}
	const body = bodyOf(exchange.family, refusal);
	const { text, sizeBytes } = body;
	const { connection } = exchange;
	const isStranger = connection.key === undefined;
	if (isStranger && ++connection.refusals >= maxRefusals)
		exchange.parting = true;
	// Anyone who expects leave to send a body may send the next request where it was due.
	if (exchange.head.expect.length > 0) exchange.closing = true;
	if (leaveBody(exchange)) exchange.closing = true;
	const headers = body.headers.concat(
		exchange.replyHeaders,
		exchange.connectionLines(),
	);
	const isPlain =
		!exchange.closing &&
		sizeBytes === text.length &&
		req.method !== "HEAD" &&
		bodyLengthOf(exchange.head) === 0;
	if (!isPlain || !sendPlain(res, refusal.status, headers, text)) {
		res.writeHead(refusal.status, headers);
		res.write(text);
		endReply(res);
		lingerForBody(exchange, isStranger);
	}
	exchange.status = refusal.status;
	exchange.bytesOut = req.method === "HEAD" ? 0 : sizeBytes;
	const outcome = outcomeOf(refusal);
	// Who has closed one side may have closed both: that is leaving, and has no reason.
	if (outcome !== "client_gone") exchange.reason = refusal.reason;
	exchange.end(outcome);
}

function outcomeOf({ status, reason }: Refusal): Outcome {
	if (status === 499) return "client_gone";
	return status >= 500 && reason.startsWith("upstream")
		? "upstream_error"
		: "refused";
}

/**
 * Ends a reply whose bytes have all been written. `end` writes an empty piece of
 * its own, and where it finds others waiting, all of them go out by one `writev`:
 * twice the price of a single string. So what waits leaves first.
 *
 * @param ended called when the system has taken the reply
 */
export function endReply(res: ServerResponse, ended?: () => void): void {
	// A pipelined reply has no socket before its turn.
	res.socket?.uncork();
	if (ended === undefined) res.end();
	else res.end(ended);
}

/**
 * Gives up a request's body that nobody wants: one in chunks, since each costs
 * time however short it is, and one of which much is to come.
 *
 * @returns whether that was so; the connection has to close behind the reply
 */
export function leaveBody(exchange: Exchange): boolean {
	const { req, head, bytesIn, connection, closing } = exchange;
	// Those before it on the connection were read to their ends.
	if (connection.stopped && connection.latest === req) return true;
	if (req.complete) return false;
	if (bodyLengthOf(head) - bytesIn > shortRestBytes) {
		lingerFor(exchange);
		return true;
	}
	// Read to its end for the next request, and not kept until the reply has left.
	req.resume();
	if (closing) lingerAtEnd(exchange);
	return false;
}

/** Drops whatever comes on a connection from now on; it closes behind its last reply. */
export function ignoreRest({ socket, address, key }: Connection): void {
	linger(socket, key === undefined ? address : `key ${key}`, key !== undefined);
}

function lingerFor({ req, connection, credential }: Exchange): void {
	const name = credential?.key.name;
	const owner = name === undefined ? connection.address : `key ${name}`;
	linger(req.socket, owner, name !== undefined);
}

/** Where Node would close the connection behind the reply, it waits for what has not come of the body by then. */
function lingerAtEnd(exchange: Exchange): void {
	const { req } = exchange;
	const { socket } = req;
	const { destroySoon } = socket;
	socket.destroySoon = () => {
		socket.destroySoon = destroySoon;
		if (!req.complete) lingerFor(exchange);
		socket.destroySoon();
	};
}

/**
 * Closes the connection of a request that has been answered and still goes on, a while
 * after its reply has had its turn.
 */
export function lingerForBody(
	{ req, res }: Exchange,
	isStranger = false,
): void {
	// Without a body a request is complete by then.
	if (!req.complete)
		process.nextTick(closeUnlessComplete, req, res, !isStranger);
}

/** Answers on a bare socket, where no request has been read: bytes that are not HTTP, CONNECT. */
export function refuseOnSocket(
	socket: Socket,
	owner: string,
	family: Family,
	refusal: Refusal,
): void {
	if (!socket.writable) return void socket.destroy();
	const body = errorBody(family, refusal.status, refusal.message);
	const head = [
		`HTTP/1.1 ${refusal.status} ${STATUS_CODES[refusal.status] ?? "Refused"}`,
		"content-type: application/json",
		`content-length: ${Buffer.byteLength(body)}`,
		"connection: close",
	];
	const headers = headersOf(refusal);
	for (let i = 0; i < headers.length; i += 2)
		head.push(`${headers[i]}: ${headers[i + 1]}`);
	socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
	endSocket(socket, owner);
}

/** Ends a connection behind what was written, and closes it once the client has had time to read that. */
export function endSocket(socket: Socket, address: string): void {
	linger(socket, address, false);
	socket.destroySoon();
}

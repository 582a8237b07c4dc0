import type { IncomingMessage, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { STATUS_CODES } from "../net/http.ts";
import { errorBody } from "../ollama/errors.ts";
import type { Family } from "../ollama/routes.ts";
import type { Exchange } from "./account.ts";

/** A decision against a request. It becomes a reply here and nowhere else. */
export interface Refusal {
	readonly status: number;
	/** A fixed word for the log and the counters; nothing from the client. */
	readonly reason: string;
	/** What the client is told: what happened and what to do. */
	readonly message: string;
	/** Names and values in turn. */
	readonly headers?: readonly string[];
}

/**
 * How long a client that was refused may go on sending its body. It has had its
 * answer by then; closing at once could make its system drop that unread.
 */
const lingerMs = 3_000;
/** Refusals that a connection may collect before anybody has shown a good key on it. */
const maxRefusals = 100;

/** Answers with a refusal in the family's error shape and closes the account. */
export function sendRefusal(exchange: Exchange, refusal: Refusal): void {
	const { req, res } = exchange;
	if (exchange.ended || res.headersSent) return;
	const body = errorBody(exchange.family, refusal.status, refusal.message);
	const headers = [
		"content-type",
		"application/json",
		"content-length",
		String(Buffer.byteLength(body)),
		...exchange.replyHeaders,
		...(refusal.headers ?? []),
	];
	const { connection } = exchange;
	if (!connection.authenticated && ++connection.refusals >= maxRefusals)
		exchange.closing = true;
	// Whoever expects leave to send a body may send the next request where it was due.
	if (exchange.head.expect.length > 0) exchange.closing = true;
	if (exchange.closing) headers.push(...exchange.closeBehind());
	res.writeHead(refusal.status, headers);
	res.write(body);
	endReply(res);
	lingerForBody(req);
	exchange.status = refusal.status;
	exchange.reason = refusal.reason;
	exchange.bytesOut = req.method === "HEAD" ? 0 : body.length;
	exchange.end(
		refusal.status >= 500 && refusal.reason.startsWith("upstream")
			? "upstream_error"
			: "refused",
	);
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

/** Closes the connection of a request that has been answered and still goes on, after a while. */
export function lingerForBody(req: IncomingMessage): void {
	if (!req.complete) process.nextTick(linger, req);
}

/** Without a body a request is complete by now. */
function linger(req: IncomingMessage): void {
	if (req.complete || req.destroyed) return;
	const { socket } = req;
	const timer = setTimeout(() => {
		if (!req.complete) socket.destroy();
	}, lingerMs);
	timer.unref();
	req.once("close", () => clearTimeout(timer));
}

/** Answers on a bare socket, where there is no request to answer: bytes that are no HTTP, CONNECT. */
export function refuseOnSocket(
	socket: Socket,
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
	for (let i = 0; i < (refusal.headers?.length ?? 0); i += 2)
		head.push(`${refusal.headers?.[i]}: ${refusal.headers?.[i + 1]}`);
	socket.write(`${head.join("\r\n")}\r\n\r\n${body}`);
	endSocket(socket);
}

/** Ends a connection behind what was written, and closes it once the client has had time to read that. */
export function endSocket(socket: Socket): void {
	socket.end();
	setTimeout(() => socket.destroy(), lingerMs).unref();
}

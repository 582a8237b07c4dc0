import type { Socket } from "node:net";
import { errorIn, type ReplyFormat, replyFormatOf } from "../ollama/errors.ts";
import { tellsTokens, type Usage } from "../ollama/replyCounts.ts";
import type { Route } from "../ollama/routes.ts";
import { ReplyScan } from "../ollama/usage.ts";
import { cutDelayMs, lastWords } from "./brokenStream.ts";
import { localSource } from "./connection.ts";
import type { Exchange, Outcome } from "./exchange.ts";
import { waitsBehindAnother, whenInTurn } from "./pipelined.ts";
import { endReply, leaveBody, lingerForBody } from "./refusal.ts";
import { firstOf, forwardedHeaders } from "./replyHead.ts";

/** A piece of so many bytes is written as a string. */
const smallBytes = 4096;

/** Their streams are events, and comments between them are nothing to their clients. */
const eventRoutes = new Set([
	"/v1/chat/completions",
	"/v1/completions",
	"/v1/responses",
	"/v1/messages",
]);
const uncached = ["cache-control", "no-cache"];

/** Ollama's reply on its way to the client, and what the gate says in its place where it breaks off. */
export class ResponseWriter {
	hasBegun = false;
	/** It has begun before Ollama's, which is still to come: a status is out, and no error can be one. */
	isAnnounced = false;
	/** The reply is with the client to its last byte, or waits for its turn behind another. */
	hasEnded = false;
	readonly #exchange: Exchange;
	readonly #route: Route;
	/** Reads the reply along, once there is one. */
	#scan: ReplyScan | undefined;
	#format: ReplyFormat = "opaque";
	/** The reply came with a length or in chunks, so that a client sees when it is broken off. */
	#framed = true;
	/** An error behind what it announces would pass for the next reply, or for a part of this one. */
	#hasLength = false;
	/** The reply is sent in chunks, which are written here: see `#write`. */
	#chunked = false;
	/** Whether Node would send a body at all. */
	#hasBody = false;
	#untoldTokens: number | undefined;
	/** The last chunk, which leaves by one write with what ends the reply. */
	#lastChunk = "";

	constructor(exchange: Exchange, route: Route) {
		this.#exchange = exchange;
		this.#route = route;
	}

	/**
	 * Sends the reply's head.
	 *
	 * @param headers Ollama's, names and values in turn
	 * @param length of a body that is not Ollama's own
	 * @returns false if there is a header that cannot be passed on; then nothing was sent
	 */
	begin(headers: readonly string[], length?: number): boolean {
		const exchange = this.#exchange;
		const { res, status } = exchange;
		const replyHeaders = forwardedHeaders(headers, status, length);
		this.#format = replyFormatOf(firstOf(replyHeaders, "content-type"));
		// nginx in front would gather a stream and pass it on in large pieces.
		if (this.#format !== "opaque") replyHeaders.push("x-accel-buffering", "no");
		this.#hasLength = firstOf(replyHeaders, "content-length") !== undefined;
		this.#scan = new ReplyScan(this.#route, this.#format);
		this.#framed = this.#hasLength || exchange.req.httpVersion === "1.1";
		replyHeaders.push(...exchange.replyHeaders);
		// Without either, the connection's close is the reply's end.
		if (!this.#framed) exchange.closing = true;
		replyHeaders.push(...exchange.connectionLines());
		try {
			res.writeHead(status, replyHeaders);
		} catch {
			return false;
		}
		this.hasBegun = true;
		this.#chunked = res.chunkedEncoding;
		res.chunkedEncoding = false;
		this.#hasBody =
			exchange.req.method !== "HEAD" && status !== 204 && status !== 304;
		// Headers go out at once, but in one packet with the bytes that came with them.
		process.nextTick(() => {
			if (!exchange.ended && exchange.bytesOut === 0 && !res.writableEnded)
				res.flushHeaders();
		});
		return true;
	}

	/**
	 * Says in an event stream that its turn is still to come: a comment, which every
	 * reader of events passes over, and proxies and clients take for a sign of life.
	 * NDJSON has nothing like it.
	 *
	 * @param ahead how many are likely to go before
	 */
	tellWaiting(ahead: number): void {
		// A gate in front would take it for the reply's first byte.
		if (this.#exchange.head.hop.length > 0) return;
		if (!eventRoutes.has(this.#route.path)) return;
		if (!this.isAnnounced) {
			this.#exchange.status = 200;
			this.begin(["content-type", "text/event-stream", ...uncached]);
			this.isAnnounced = true;
		}
		const comment = Buffer.from(`: waiting, ${ahead} ahead\n\n`);
		this.#write(comment, 0, comment.length);
	}

	/**
	 * Passes a piece on. Returns false if the client does not keep up.
	 *
	 * @param isLast `end` or `breakOff` follows at once
	 */
	pass(buffer: Buffer, start: number, end: number, isLast: boolean): boolean {
		const exchange = this.#exchange;
		const isFirst = exchange.bytesOut === 0;
		if (isFirst) exchange.ttftMs = performance.now() - exchange.startedAtMs;
		exchange.bytesOut += end - start;
		exchange.piecesOut += 1;
		this.#scan?.push(buffer, start, end);
		if (end - start > smallBytes || end === start)
			return this.#write(buffer, start, end);
		if (isLast && this.#chunked) {
			this.#lastChunk = this.#textOf(buffer, start, end);
			return true;
		}
		const socket = isFirst ? undefined : this.#idleSocket;
		return socket === undefined
			? this.#write(buffer, start, end)
			: socket.write(this.#textOf(buffer, start, end), "latin1");
	}

	/**
	 * The client's socket, if a small piece of the body may be given to it past
	 * Node's response, which would cork it and write in a turn of its own for each:
	 * the head is out, and nothing waits in the response or the socket. So the socket
	 * takes the piece, and nobody has to wait for it to drain.
	 */
	get #idleSocket(): Socket | undefined {
		if (!this.#hasBody) return undefined;
		const { socket } = this.#exchange.res;
		// Before its turn behind another reply it has no socket.
		return socket?.writable === true && socket.writableLength === 0
			? socket
			: undefined;
	}

	/** What the reply calls the model, as soon as it does. */
	get model(): string | undefined {
		return this.#scan?.model;
	}

	/** Whether the reply, as far as it has come, ends as its route's replies do. */
	get isWhole(): boolean {
		return this.#exchange.status >= 400 || this.#scan?.isComplete !== false;
	}

	/** Whether its last words, which are no error, have been given to the client's socket and taken from it. */
	get saidAll(): boolean {
		const { req, res, status } = this.#exchange;
		return (
			status < 400 &&
			!waitsBehindAnother(res) &&
			req.socket.writableLength === 0 &&
			this.#scan?.saidAll === true &&
			!this.#scan.endsWithError
		);
	}

	/** What the reply, which has come to its end, says of tokens. */
	usage(): Usage | undefined {
		return this.#scan?.usage();
	}

	/** Tokens that passed and of which the reply, which has come to its end, tells no count: one for each event or line of text. */
	untoldTokens(): number {
		const scan = this.#scan;
		if (scan === undefined || this.#exchange.status >= 400) return 0;
		this.#untoldTokens ??= tellsTokens(scan.usage()) ? 0 : scan.textEvents;
		return this.#untoldTokens;
	}

	/** Sends a list that is the gate's own, as Ollama sends its. */
	sendWhole(body: Buffer): void {
		const { req, res } = this.#exchange;
		this.#exchange.status = 200;
		this.begin(
			["content-type", "application/json; charset=utf-8"],
			body.length,
		);
		if (req.method !== "HEAD") this.pass(body, 0, body.length, true);
		else res.flushHeaders();
		this.end();
		lingerForBody(this.#exchange);
	}

	/** Ends a reply that is whole. */
	end(): void {
		const exchange = this.#exchange;
		this.hasEnded = true;
		exchange.repliedAtMs = performance.now();
		const outcome = this.#outcome();
		this.#endChunks();
		const leaves = leaveBody(exchange);
		endReply(exchange.res, () => {
			exchange.end(outcome);
			if (leaves) exchange.req.socket.destroySoon();
		});
	}

	/**
	 * Ends a reply that has begun and cannot be finished: one error in the
	 * stream's own form, if it has not ended with one itself, then a connection that closes without the reply's end,
	 * so that nobody takes it for whole.
	 */
	breakOff(message: string, outcome: Outcome, graceMs: number): void {
		const exchange = this.#exchange;
		const { res } = exchange;
		if (this.#lastChunk !== "") res.write(this.#lastChunk, "latin1");
		this.#lastChunk = "";
		const { text, ending } = lastWords(
			exchange,
			this.#route,
			this.#format,
			this.#scan,
			message,
			graceMs > 0 && !this.#hasLength && exchange.req.method !== "HEAD",
		);
		if (text !== undefined) {
			const last = Buffer.from(text);
			exchange.bytesOut += last.length;
			this.#write(last, 0, last.length);
		} else if (graceMs > 0) res.flushHeaders();
		exchange.end(outcome);
		if (ending === "whole") this.#endCleanly(graceMs);
		else if (ending === "later") this.#closeLater(graceMs);
		else this.closeSoon(graceMs);
	}

	/** The same, where Ollama has answered with an error after the reply had begun. */
	breakOffBy(status: number, body: Buffer, graceMs: number): void {
		this.#exchange.reason = "upstream_status";
		const message = errorIn(body) ?? `Ollama answered with ${status}`;
		this.breakOff(message, "upstream_error", graceMs);
	}

	/**
	 * Closes the client's connection behind what was written, or after the grace without
	 * it; in this reply's turn, as the one before it goes on. Without any grace at once.
	 */
	closeSoon(graceMs: number): void {
		const { connection, req, res } = this.#exchange;
		// What a client has sent behind it has no answer any more.
		connection.closing = true;
		if (graceMs === 0) req.socket.destroy();
		else whenInTurn(res, () => this.#close(graceMs));
	}

	#close(graceMs: number): void {
		const { socket } = this.#exchange.req;
		if (socket.destroyed) return;
		if (this.#framed) socket.destroySoon();
		else {
			// Without a length a clean close would be the reply's regular end (RFC 9112, 6.3).
			// A Unix socket knows no reset, and Node throws.
			const { connection } = this.#exchange;
			const isLocal = connection.parsedAddress === localSource;
			// Nor does a socket that speaks TLS.
			socket.write("", () =>
				isLocal ? socket.destroy() : connection.accepted.resetAndDestroy(),
			);
		}
		const timer = setTimeout(() => socket.destroy(), graceMs);
		timer.unref();
		socket.once("close", () => clearTimeout(timer));
	}

	/** Notes what the reply said of models and tokens, and lets go of what read it. */
	release(): void {
		if (this.#route.scope === "infer" && this.#exchange.status < 400) {
			this.#exchange.usage = this.#scan?.usage();
			this.untoldTokens();
		}
		this.#scan?.release();
	}

	/**
	 * Writes a piece of the reply's body as one string or buffer. Node would write
	 * a chunk as four pieces (size, line end, data, line end), and a small string
	 * costs less than a buffer, and is joined to the headers where it is the first.
	 * Latin-1 keeps every byte.
	 */
	#write(buffer: Buffer, start: number, end: number): boolean {
		const { res } = this.#exchange;
		const length = end - start;
		// A chunk without data would be the reply's end.
		if (this.#chunked && length === 0) return !res.writableNeedDrain;
		if (length <= smallBytes)
			return res.write(this.#textOf(buffer, start, end), "latin1");
		if (!this.#chunked)
			return res.write(Buffer.from(buffer.subarray(start, end)));
		const size = `${length.toString(16)}\r\n`;
		const chunk = Buffer.allocUnsafe(size.length + length + 2);
		chunk.write(size, "latin1");
		buffer.copy(chunk, size.length, start, end);
		chunk.write("\r\n", size.length + length, "latin1");
		return res.write(chunk);
	}

	#endChunks(): void {
		if (!this.#chunked) return;
		this.#exchange.res.write(`${this.#lastChunk}0\r\n\r\n`, "latin1");
	}

	/** A small piece as it is sent. */
	#textOf(buffer: Buffer, start: number, end: number): string {
		const text = buffer.toString("latin1", start, end);
		return this.#chunked
			? `${(end - start).toString(16)}\r\n${text}\r\n`
			: text;
	}

	/** How a reply that went through to its end is counted, with the reason where Ollama has failed. */
	#outcome(): Outcome {
		const exchange = this.#exchange;
		if (exchange.status >= 500) {
			exchange.reason = "upstream_status";
			return "upstream_error";
		}
		if (exchange.status >= 400) return "rejected";
		if (this.#scan?.endsWithError !== true) return "ok";
		exchange.reason = "upstream_stream_error";
		return "upstream_error";
	}

	/** The error has been told; a client that does not take it in time is cut off. */
	#endCleanly(graceMs: number): void {
		const { req, res } = this.#exchange;
		this.#endChunks();
		let timer: NodeJS.Timeout | undefined;
		whenInTurn(res, () => {
			timer = setTimeout(() => req.socket.destroy(), graceMs).unref();
		});
		const leaves = leaveBody(this.#exchange);
		endReply(res, () => {
			clearTimeout(timer);
			if (leaves) req.socket.destroySoon();
		});
		lingerForBody(this.#exchange);
	}

	#closeLater(graceMs: number): void {
		const { connection, req, res } = this.#exchange;
		// What a client has sent behind it has no answer any more.
		connection.closing = true;
		whenInTurn(res, () => {
			const timer = setTimeout(() => this.#close(graceMs), cutDelayMs);
			timer.unref();
			req.socket.once("close", () => clearTimeout(timer));
		});
	}
}

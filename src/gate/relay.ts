import { Readable } from "node:stream";
import type { Dispatcher } from "undici";
import type { Settings } from "../config/load.ts";
import type { UpstreamPool } from "../net/upstream.ts";
import {
	type ReplyFormat,
	replyFormatOf,
	streamError,
} from "../ollama/errors.ts";
import { type Route, smallBodyBytes } from "../ollama/routes.ts";
import { ReplyEnds } from "../ollama/usage.ts";
import type { Exchange, Outcome } from "./account.ts";
import { bodyTooLarge } from "./limit.ts";
import {
	type BodyGuard,
	filterReply,
	guardBody,
	type ReplyFilter,
} from "./modelPolicy.ts";
import { lingerForBody, type Refusal, sendRefusal } from "./refusal.ts";
import { bodyLengthOf, bodyLimitOf } from "./route.ts";

/** A body up to this size is read whole before a connection to Ollama is taken for it. */
const wholeBodyBytes = 64 * 1024;
/** The longest list of models that is filtered. */
const maxListBytes = 16 * 2 ** 20;
/** How long a client may take to read what it was sent before a cut. */
const cutGraceMs = 5_000;

/**
 * Headers of a reply that concern Ollama's connection and not the client's
 * (RFC 9110, 7.6.1), and what only the gate may say.
 */
const notForwarded = new Set([
	"connection",
	"keep-alive",
	"proxy-authenticate",
	"proxy-connection",
	"te",
	"trailer",
	"transfer-encoding",
	"upgrade",
	"set-cookie",
	"alt-svc",
	"x-request-id",
	"vary",
]);

type ReplyHeaders = Record<string, string | string[] | undefined>;

/** A reply that waits for its end. */
interface Held {
	readonly headers: ReplyHeaders;
	readonly chunks: Buffer[];
	bytes: number;
}

/** What all relays together hold of bodies that a rule must see whole. */
export interface JudgedBodies {
	bytes: number;
}

/**
 * Step 7: one request to Ollama and its reply, bytes both ways.
 *
 * It speaks undici's dispatch protocol itself, because `reply.from` gives
 * undici nothing to abort by: a client that leaves while a model loads would
 * keep the GPU busy, and its headers would wait for the first byte of the body.
 */
export class Relay implements Dispatcher.DispatchHandler {
	readonly exchange: Exchange;
	readonly #judged: JudgedBodies;
	/** This relay's part of it. */
	#judgedBytes = 0;
	/** The pool in force: a reload may change it until the request goes out. */
	readonly #upstreamNow: () => UpstreamPool;
	#upstream: UpstreamPool | undefined;
	readonly #settings: Settings;
	readonly #route: Route;
	readonly #ends = new ReplyEnds();
	/** Reads the body where a rule of the key's depends on it. */
	readonly #guard: BodyGuard | undefined;
	/** Takes models out of a list that the key may not see. */
	readonly #filter: ReplyFilter | undefined;
	#held: Held | undefined;
	#controller: Dispatcher.DispatchController | undefined;
	#format: ReplyFormat = "opaque";
	/** The reply came with a length or in chunks, so that a client sees when it is broken off. */
	#framed = true;
	/** The reply is sent in chunks, which the relay writes itself: see `#send`. */
	#chunked = false;
	#bodySent = false;
	#replyStarted = false;
	#clientIsSlow = false;
	#ollamaIsSlow = false;
	/** Sweeps since anything moved; every byte sets it back. */
	#quietSweeps = 0;
	#finished = false;

	constructor(
		exchange: Exchange,
		route: Route,
		upstream: () => UpstreamPool,
		settings: Settings,
		judged: JudgedBodies,
	) {
		this.#judged = judged;
		this.exchange = exchange;
		this.#route = route;
		this.#upstreamNow = upstream;
		const key = exchange.credential?.key;
		if (key === undefined)
			throw new Error("a request without a credential reached the relay");
		this.#guard = guardBody(key, route, exchange.head.contentType[0]);
		this.#filter = filterReply(key, route);
		this.#settings = settings;
		// However the exchange ends, nothing goes on upstream.
		exchange.atEnd(() => {
			this.#noteUsage();
			this.#stopUpstream();
			judged.bytes -= this.#judgedBytes;
		});
	}

	/** Reads the request's body and sends it on. `path` is what the route table matched. */
	start(path: string): void {
		const { exchange } = this;
		const length = bodyLengthOf(exchange.head);
		if (length === 0 && this.#guard === undefined) {
			// Nothing follows the head, but the parser must reach the message's end for the next request.
			exchange.req.resume();
			this.#bodySent = true;
			this.#dispatch(path, null);
		} else if (this.#guard !== undefined || length <= wholeBodyBytes)
			this.#readWhole(path);
		else this.#dispatch(path, this.#bodyStream());
	}

	/** A small body, and one that a rule of the key's must see before Ollama does. */
	#readWhole(path: string): void {
		const { req } = this.exchange;
		const limit = this.#bodyLimit();
		this.#continue();
		const chunks: Buffer[] = [];
		req.on("data", (chunk: Buffer) => {
			this.#quietSweeps = 0;
			if (this.exchange.ended) return;
			this.exchange.bytesIn += chunk.length;
			if (this.exchange.bytesIn > limit) {
				chunks.length = 0;
				this.#refuse(bodyTooLarge(limit));
				return;
			}
			if (this.#guard !== undefined && !this.#takeRoom(chunk.length)) {
				chunks.length = 0;
				return;
			}
			this.#guard?.push(chunk);
			chunks.push(chunk);
		});
		req.on("end", () => {
			if (this.exchange.ended) return;
			const [only] = chunks;
			const body =
				chunks.length === 1 && only !== undefined
					? only
					: Buffer.concat(chunks);
			this.#bodySent = true;
			const refusal = this.#guard?.finish(body);
			if (refusal === undefined) this.#dispatch(path, body);
			else this.#refuse(refusal);
		});
	}

	/** Bodies that wait for a rule stand in memory, so all of them together may have only so much of it. */
	#takeRoom(sizeBytes: number): boolean {
		const room = 2 * this.#settings.limits.bodyBytes;
		if (this.#judged.bytes + sizeBytes > room) {
			this.#refuse({
				status: 503,
				reason: "busy",
				message: "too many large bodies are being read; try again",
				headers: ["retry-after", "5"],
			});
			return false;
		}
		this.#judged.bytes += sizeBytes;
		this.#judgedBytes += sizeBytes;
		return true;
	}

	#bodyLimit(): number {
		return bodyLimitOf(
			this.#route,
			this.#settings.limits.bodyBytes,
			smallBodyBytes,
		);
	}

	/**
	 * The request's body as undici reads it. A stream of its own, since undici
	 * destroys the body of a request that fails, and with an incoming message
	 * goes the client's connection before it has had an answer.
	 */
	#bodyStream(): Readable {
		const { req } = this.exchange;
		const limit = this.#bodyLimit();
		let begun = false;
		const body = new Readable({
			highWaterMark: wholeBodyBytes,
			read: () => {
				if (!begun) {
					begun = true;
					this.#continue();
					req.on("data", (chunk: Buffer) => {
						this.#quietSweeps = 0;
						this.exchange.bytesIn += chunk.length;
						if (this.exchange.bytesIn > limit)
							this.#refuse(bodyTooLarge(limit));
						else if (!body.push(chunk)) {
							this.#ollamaIsSlow = true;
							req.pause();
						}
					});
					req.on("end", () => {
						this.#bodySent = true;
						body.push(null);
					});
				}
				this.#ollamaIsSlow = false;
				req.resume();
			},
		});
		// undici destroys it when the request is aborted; that is no news.
		body.on("error", () => {});
		return body;
	}

	/** Only now is the client told to send: whoever was refused before never had to. */
	#continue(): void {
		if (this.exchange.expectsContinue && !this.exchange.res.headersSent)
			this.exchange.res.writeContinue();
	}

	#dispatch(path: string, body: Buffer | Readable | null): void {
		const { exchange } = this;
		if (exchange.ended) return;
		const upstream = this.#upstreamNow();
		if (upstream.active >= upstream.maxConnections) {
			this.#refuse(busy(upstream.maxConnections));
			return;
		}
		upstream.active += 1;
		exchange.atEnd(() => {
			upstream.active -= 1;
		});
		this.#upstream = upstream;
		const { origin, hostHeader } = upstream;
		const headers = ["host", hostHeader, ...exchange.head.forwarded];
		const [length] = exchange.head.contentLength;
		if (body instanceof Readable && length !== undefined)
			headers.push("content-length", length);
		const { method } = this.#route;
		try {
			upstream.pool.dispatch({ origin, path, method, headers, body }, this);
		} catch (error) {
			this.onResponseError(undefined, error as Error);
		}
	}

	onRequestStart(controller: Dispatcher.DispatchController): void {
		this.#controller = controller;
		this.#quietSweeps = 0;
		// The client left while a connection was being made.
		if (this.exchange.ended) controller.abort(new Error("the client is gone"));
	}

	onResponseStart(
		_controller: Dispatcher.DispatchController,
		status: number,
		headers: ReplyHeaders,
	): void {
		const { exchange } = this;
		if (exchange.ended || status < 200) return;
		this.#quietSweeps = 0;
		if (status >= 300 && status < 400) {
			this.#refuse(
				badGateway(
					"upstream_redirect",
					"Ollama answered with a redirect, which is never followed",
				),
			);
			return;
		}
		exchange.status = status;
		if (this.#filter !== undefined && status === 200)
			this.#held = { headers, chunks: [], bytes: 0 };
		else this.#beginReply(headers);
	}

	#beginReply(headers: ReplyHeaders): void {
		const { exchange } = this;
		const { res, status } = exchange;
		this.#format = replyFormatOf(single(headers["content-type"]));
		this.#framed =
			headers["content-length"] !== undefined ||
			exchange.req.httpVersion === "1.1";
		const replyHeaders = forwardedHeaders(headers);
		replyHeaders.push(...exchange.replyHeaders);
		if (exchange.closing) replyHeaders.push(...exchange.closeBehind());
		try {
			res.writeHead(status, replyHeaders);
		} catch {
			this.#refuse(
				badGateway(
					"upstream_garbage",
					"Ollama sent a header that cannot be passed on",
				),
			);
			return;
		}
		this.#replyStarted = true;
		this.#chunked = res.chunkedEncoding;
		res.chunkedEncoding = false;
		// Headers go out at once, but in one packet with the bytes that came with them.
		process.nextTick(() => {
			if (!exchange.ended && exchange.bytesOut === 0 && !res.writableEnded)
				res.flushHeaders();
		});
	}

	onResponseData(
		controller: Dispatcher.DispatchController,
		chunk: Buffer,
	): void {
		const { exchange } = this;
		if (exchange.ended) return;
		this.#quietSweeps = 0;
		if (this.#held !== undefined) {
			this.#hold(this.#held, chunk);
			return;
		}
		if (this.#write(chunk)) return;
		this.#clientIsSlow = true;
		controller.pause();
		exchange.res.once("drain", () => {
			this.#clientIsSlow = false;
			this.#quietSweeps = 0;
			controller.resume();
		});
	}

	/** Passes a piece on. Returns false if the client does not keep up. */
	#write(chunk: Buffer): boolean {
		const { exchange } = this;
		if (exchange.bytesOut === 0)
			exchange.ttftMs = performance.now() - exchange.startedAtMs;
		const isFirst = exchange.bytesOut === 0;
		exchange.bytesOut += chunk.length;
		this.#ends.push(chunk);
		return this.#send(chunk, isFirst);
	}

	/**
	 * Sends a piece of the reply's body. Node would write a chunk as four pieces
	 * (size, line end, data, line end); a small one as one string costs a good
	 * part less, and is joined to the headers where it is the first. Latin-1 keeps
	 * every byte.
	 */
	#send(piece: Buffer, joins = false): boolean {
		const { res } = this.exchange;
		const isSmall = piece.length <= 4096;
		if (!this.#chunked)
			return isSmall && joins
				? res.write(piece.toString("latin1"), "latin1")
				: res.write(piece);
		// A chunk without data would be the reply's end.
		if (piece.length === 0) return !res.writableNeedDrain;
		const size = piece.length.toString(16);
		if (isSmall)
			return res.write(`${size}\r\n${piece.toString("latin1")}\r\n`, "latin1");
		res.write(`${size}\r\n`, "latin1");
		res.write(piece);
		return res.write("\r\n", "latin1");
	}

	/** A list is short, and must be whole before what the key may not see is taken out. */
	#hold(held: Held, chunk: Buffer): void {
		held.chunks.push(chunk);
		held.bytes += chunk.length;
		if (held.bytes > maxListBytes)
			this.#refuse(badGateway("upstream_garbage", "Ollama's list is too long"));
	}

	#sendHeld({ headers, chunks }: Held): void {
		const body = this.#filter?.(Buffer.concat(chunks));
		if (body === undefined) {
			this.#refuse(
				badGateway("upstream_garbage", "Ollama's list cannot be read"),
			);
			return;
		}
		this.#beginReply({ ...headers, "content-length": String(body.length) });
		this.#write(body);
	}

	onResponseEnd(): void {
		const { exchange } = this;
		if (exchange.ended) return;
		if (this.#held !== undefined) this.#sendHeld(this.#held);
		// What was held may have turned out to be no list.
		if (exchange.ended) return;
		if (
			exchange.status < 400 &&
			!this.#ends.isComplete(this.#route, this.#format)
		) {
			exchange.reason = "upstream_truncated";
			this.#breakOff(
				"Ollama ended the stream before it was complete",
				"upstream_error",
				cutGraceMs,
			);
			return;
		}
		this.#finished = true;
		const failed = this.#ends.endsWithError(this.#format);
		if (failed) exchange.reason = "upstream_stream_error";
		const ended = () => exchange.end(failed ? "upstream_error" : "ok");
		if (this.#chunked) exchange.res.end("0\r\n\r\n", "latin1", ended);
		else exchange.res.end(ended);
		lingerForBody(exchange.req);
	}

	onResponseError(
		_controller: Dispatcher.DispatchController | undefined,
		error: Error,
	): void {
		if (this.exchange.ended) return;
		this.#fail(describeFault(error, this.#upstream?.name ?? "upstream.url"));
	}

	/**
	 * Stops it for a reason of the gate's own: a revoked key, a shutdown.
	 *
	 * @param why the reply, if none has begun; its message goes into the stream otherwise
	 * @param graceMs how long what was written may still flow before the connection is closed hard
	 */
	cut(why: Refusal, graceMs: number): void {
		const { exchange } = this;
		if (exchange.ended) return;
		if (this.#finished) {
			this.#closeSoon(graceMs);
			return;
		}
		exchange.reason = why.reason;
		if (!this.#replyStarted) {
			exchange.closing = true;
			sendRefusal(exchange, why);
			return;
		}
		this.#breakOff(why.message, "cut", graceMs);
	}

	/**
	 * Looks after time: called for every relay at a fixed interval, so that a
	 * byte costs no timer. Ends what has stood still for too long.
	 */
	sweep(intervalMs: number): void {
		if (this.exchange.ended) return;
		this.#quietSweeps += 1;
		const { firstByteTimeoutMs, idleTimeoutMs } = this.#settings.upstream;
		const quietMs = this.#quietSweeps * intervalMs;
		const waitsForOllama = this.#bodySent && this.exchange.bytesOut === 0;
		if (quietMs < (waitsForOllama ? firstByteTimeoutMs : idleTimeoutMs)) return;
		if (this.#clientIsSlow || this.#finished) {
			this.exchange.reason = "client_stalled";
			this.#breakOff("the client stopped reading", "cut", 0);
		} else if (!this.#bodySent && !this.#ollamaIsSlow && !this.#replyStarted) {
			this.exchange.closing = true;
			this.#refuse({
				status: 408,
				reason: "body_stalled",
				message: "the request's body stopped coming",
			});
		} else {
			const seconds = Math.round(quietMs / 1000);
			const message = `Ollama sent nothing for ${seconds} s`;
			this.#fail({ status: 504, reason: "upstream_timeout", message });
		}
	}

	/** Ollama has failed: an error status if there is time for one, else the stream is broken off. */
	#fail(fault: Refusal): void {
		if (!this.#replyStarted) {
			sendRefusal(this.exchange, fault);
			return;
		}
		this.exchange.reason = fault.reason;
		this.#breakOff(fault.message, "upstream_error", cutGraceMs);
	}

	#noteUsage(): void {
		if (this.#route.scope === "infer")
			this.exchange.usage = this.#ends.usage(this.#route);
	}

	#refuse(refusal: Refusal): void {
		if (this.exchange.ended) return;
		if (!this.#replyStarted) {
			sendRefusal(this.exchange, refusal);
			return;
		}
		this.exchange.reason = refusal.reason;
		// Its reply is whole already, and waits for its turn behind another.
		if (this.#finished) this.#closeSoon(0);
		else this.#breakOff(refusal.message, "cut", cutGraceMs);
	}

	/**
	 * Ends a reply that has begun and cannot be finished: one error in the
	 * stream's own form, then a connection that closes without the reply's end,
	 * so that nobody takes it for whole.
	 */
	#breakOff(message: string, outcome: Outcome, graceMs: number): void {
		const { exchange } = this;
		const { res } = exchange;
		const text = streamError(
			exchange.family,
			this.#format,
			message,
			this.#ends.lastByte,
		);
		if (text !== undefined && exchange.req.method !== "HEAD" && graceMs > 0) {
			const last = Buffer.from(text);
			exchange.bytesOut += last.length;
			this.#send(last);
		} else if (graceMs > 0) res.flushHeaders();
		exchange.end(outcome);
		this.#closeSoon(graceMs);
	}

	/** Closes the client's connection behind what was written, or after the grace without it. */
	#closeSoon(graceMs: number): void {
		const { socket } = this.exchange.req;
		if (socket.destroyed) return;
		if (graceMs === 0) return void socket.destroy();
		if (this.#framed) socket.destroySoon();
		else {
			// Without a length a clean close would be the reply's regular end (RFC 9112, 6.3).
			socket.write("", () => socket.resetAndDestroy());
		}
		const timer = setTimeout(() => socket.destroy(), graceMs);
		timer.unref();
		socket.once("close", () => clearTimeout(timer));
	}

	#stopUpstream(): void {
		if (!this.#finished)
			this.#controller?.abort(new Error("the exchange has ended"));
	}
}

function busy(maxConnections: number): Refusal {
	return {
		status: 503,
		reason: "busy",
		message: `server busy: ${maxConnections} requests are with Ollama already`,
		headers: ["retry-after", "5"],
	};
}

function badGateway(reason: string, message: string): Refusal {
	return { status: 502, reason, message };
}

/** Puts a fault of undici's or the system's into words. */
function describeFault(
	error: Error & { code?: string },
	name: string,
): Refusal {
	switch (error.code) {
		case "ECONNREFUSED":
		case "ENOENT":
		case "EACCES":
		case "UND_ERR_CONNECT_TIMEOUT":
			return badGateway(
				"upstream_unreachable",
				`llamagate cannot reach Ollama at ${name} (${error.code}); is it running?`,
			);
		case "EMFILE":
		case "ENFILE":
			return badGateway(
				"upstream_unreachable",
				`llamagate has no file descriptor left to reach Ollama by (${error.code})`,
			);
		case "UND_ERR_HEADERS_OVERFLOW":
		case "UND_ERR_RES_CONTENT_LENGTH_MISMATCH":
			return badGateway(
				"upstream_garbage",
				"Ollama's answer was not valid HTTP",
			);
		default:
			// undici's words for a 100 and for an upgrade that nobody has asked for
			return error.name === "HTTPParserError" ||
				error.message === "bad response" ||
				error.message === "bad upgrade"
				? badGateway("upstream_garbage", "Ollama's answer was not valid HTTP")
				: badGateway(
						"upstream_died",
						"Ollama closed the connection in the middle of the request",
					);
	}
}

function single(value: string | string[] | undefined): string | undefined {
	return Array.isArray(value) ? value[0] : value;
}

function forwardedHeaders(headers: ReplyHeaders): string[] {
	const forwarded: string[] = [];
	const named = headers.connection;
	const connectionOptions =
		named === undefined
			? undefined
			: new Set(
					String(named)
						.toLowerCase()
						.split(/[\s,]+/),
				);
	for (const [name, value] of Object.entries(headers)) {
		if (
			value === undefined ||
			notForwarded.has(name) ||
			connectionOptions?.has(name) === true
		)
			continue;
		if (name.startsWith("access-control-") || name.startsWith("ratelimit-"))
			continue;
		if (typeof value === "string") forwarded.push(name, value);
		else for (const one of value) forwarded.push(name, one);
	}
	return forwarded;
}

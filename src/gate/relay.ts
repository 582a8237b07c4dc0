import type { Settings } from "../config/load.ts";
import { localSource } from "../net/connections.ts";
import type { ReplyHead } from "../net/replyReader.ts";
import {
	OddRequest,
	type Upstream,
	type UpstreamCall,
	type UpstreamFault,
	type UpstreamRequest,
	type UpstreamSink,
} from "../net/upstream.ts";
import {
	type ReplyFormat,
	replyFormatOf,
	responsesError,
	streamError,
} from "../ollama/errors.ts";
import { type Route, smallBodyBytes } from "../ollama/routes.ts";
import { ReplyScan } from "../ollama/usage.ts";
import type { Exchange, Outcome } from "./account.ts";
import { type BodyGuard, guardBody } from "./bodyGuard.ts";
import type { JudgedBodies } from "./judgedBodies.ts";
import { bodyTooLarge } from "./limit.ts";
import { filterReply, type ReplyFilter } from "./modelPolicy.ts";
import {
	endReply,
	leaveBody,
	lingerForBody,
	type Refusal,
	sendRefusal,
} from "./refusal.ts";
import { bodyLengthOf, bodyLimitOf } from "./route.ts";
import type { Upload, Uploads } from "./uploads.ts";
import { WholeBody, wholeBodyBytes } from "./wholeBody.ts";

/** Pieces of a body that are smaller go on together: each write costs as much as one of some thousand bytes. */
const smallPieceBytes = 1024;
const mostSmallPieces = 1000;
/** What must come of a large body that waits for a rule, or it gives up its room. */
const leastBytesPerSecond = 16 * 1024;
const rateWindowMs = 30_000;
/** The longest list of models that is filtered. */
const maxListBytes = 16 * 2 ** 20;
/** How long a client may take to read what it was sent before a cut. */
const cutGraceMs = 5_000;
/**
 * How long after its error an event stream is cut. Some clients (those on Bun) drop
 * what they have not read yet once they see the cut. For NDJSON the cut itself is
 * the signal, and comes at once.
 */
const cutDelayMs = 75;
/** Pulling and creating hash and convert large files without a word: how much longer they may be silent. */
const managementPatience = 4;

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

/** A reply that waits for its end. */
interface Held {
	/** Names and values in turn. */
	readonly headers: readonly string[];
	readonly chunks: Buffer[];
	bytes: number;
}

/**
 * Step 7: one request to Ollama and its reply, bytes both ways.
 *
 * Not `reply.from`'s, which has nothing to abort by: a client that leaves while
 * a model loads would keep the GPU busy, and its headers would wait for the
 * first byte of the body.
 */
export class Relay implements UpstreamSink {
	readonly exchange: Exchange;
	place = -1;
	readonly #judged: JudgedBodies;
	/** What is held there for this relay's body. */
	#judgedBytes = 0;
	/** The key's name. */
	readonly #key: string;
	/** The body, where it is read whole. */
	#whole: WholeBody | undefined;
	/** The body is held back until its turn. */
	#waitsForTurn = false;
	/** Of a large body that is judged: sweeps in this window, and bytes before it. */
	#windowSweeps = 0;
	#bytesBeforeWindow = 0;
	/** Small pieces that go on together. */
	#small: Buffer[] = [];
	/** The one in force: a reload may change it until the request goes out. */
	readonly #upstreamNow: () => Upstream;
	#upstream: Upstream | undefined;
	#request: UpstreamRequest | undefined;
	readonly #settings: Settings;
	readonly #route: Route;
	/** Reads the reply along, once there is one. */
	#scan: ReplyScan | undefined;
	/** Reads the body where a rule of the key's depends on it. */
	readonly #guard: BodyGuard | undefined;
	/** Takes models out of a list that the key may not see. */
	readonly #filter: ReplyFilter | undefined;
	#held: Held | undefined;
	#format: ReplyFormat = "opaque";
	/** The reply came with a length or in chunks, so that a client sees when it is broken off. */
	#framed = true;
	/** An error behind what it announces would pass for the next reply, or for a part of this one. */
	#hasLength = false;
	/** The reply is sent in chunks, which the relay writes itself: see `#write`. */
	#chunked = false;
	#bodySent = false;
	/** It is passed on as it comes. */
	#bodyFlows = false;
	#replyStarted = false;
	#clientIsSlow = false;
	#ollamaIsSlow = false;
	/** Sweeps since anything moved; every byte sets it back. */
	#quietSweeps = 0;
	#finished = false;
	/** Reads along a file that the key is to have sent itself. */
	readonly #upload: Upload | undefined;
	/** Its reply is whole, and waits for what shows that the client has the file. */
	#replyWaits = false;

	constructor(
		exchange: Exchange,
		route: Route,
		upstream: () => Upstream,
		settings: Settings,
		judged: JudgedBodies,
		uploads: Uploads,
	) {
		this.#judged = judged;
		this.exchange = exchange;
		this.#route = route;
		this.#upstreamNow = upstream;
		const { credential, head, match } = exchange;
		if (credential === undefined || match.kind !== "route")
			throw new Error("a request without a credential reached the relay");
		this.#key = credential.key.name;
		this.#guard = guardBody(credential, route, head, uploads);
		this.#upload = uploads.watch(credential, route, match.path);
		this.#filter = filterReply(credential.key, route);
		this.#settings = settings;
		// However the exchange ends, nothing goes on upstream.
		exchange.atEnd(() => {
			this.#noteUsage();
			this.#scan?.release();
			this.#request?.abort();
			this.#dropRestOfBody();
			judged.give(this.#key, this.#judgedBytes);
			// What has been sent on is Ollama's connection's.
			if (this.#upstream === undefined) this.#whole?.release();
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
			this.#send(path, undefined);
		} else if (this.#guard !== undefined || length <= wholeBodyBytes)
			this.#readWhole(path);
		else
			this.#send(path, {
				length: exchange.head.contentLength[0] ?? "chunked",
			});
	}

	/** A small body, and one that a rule of the key's must see before Ollama does. */
	#readWhole(path: string): void {
		const { req, head } = this.exchange;
		const limit = this.#bodyLimit();
		const whole = new WholeBody(bodyLengthOf(head), limit);
		this.#whole = whole;
		this.#continue();
		req.on("data", (chunk: Buffer) => {
			this.#quietSweeps = 0;
			if (this.exchange.ended) return;
			this.exchange.bytesIn += chunk.length;
			if (this.exchange.bytesIn > limit) {
				this.#refuse(bodyTooLarge(limit));
				return;
			}
			if (this.#guard !== undefined) {
				if (!this.#takeRoom()) return;
				this.#judge(this.#guard, chunk, whole);
			} else whole.push(chunk);
			this.#upload?.push(chunk);
		});
		req.on("end", () => {
			if (this.exchange.ended) return;
			const body = whole.bytes;
			this.#bodySent = true;
			this.#upload?.finish();
			const proceed = (refusal: Refusal | undefined) => {
				if (refusal === undefined) this.#send(path, body);
				else this.#refuse(refusal);
			};
			const verdict = this.#guard?.finish(body);
			if (verdict instanceof Promise) void verdict.then(proceed);
			else proceed(verdict);
		});
	}

	/** Bodies that wait for a rule stand in memory, so all of them together may have only so much of it. */
	#takeRoom(): boolean {
		const held = this.#judged.take(
			this.#key,
			this.exchange.bytesIn,
			this.#judgedBytes,
			2 * this.#settings.limits.bodyBytes,
		);
		if (held === undefined) {
			this.#refuse({
				status: 503,
				reason: "busy",
				message: "too many large bodies are being read; try again",
				headers: ["retry-after", "5"],
			});
			return false;
		}
		this.#judgedBytes = held;
		return true;
	}

	/** A large body takes the event loop's time in small parts. */
	#judge(guard: BodyGuard, piece: Buffer, whole: WholeBody): void {
		const judge = () => {
			guard.push(piece);
			whole.push(piece);
		};
		if (this.#judgedBytes === 0 || this.#waitsForTurn) {
			judge();
			return;
		}
		this.#waitsForTurn = true;
		this.exchange.req.pause();
		this.#judged.inTurn(judge, () => {
			this.#waitsForTurn = false;
			this.exchange.req.resume();
		});
	}

	#bodyLimit(): number {
		return bodyLimitOf(
			this.#route,
			this.#settings.limits.bodyBytes,
			smallBodyBytes,
		);
	}

	/** There is a connection to Ollama, or room in it again: the client's body flows. */
	ready(): void {
		if (this.exchange.ended) return;
		if (!this.#bodyFlows) this.#passBody();
		this.#ollamaIsSlow = false;
		this.exchange.req.resume();
	}

	#passBody(): void {
		const { req } = this.exchange;
		const limit = this.#bodyLimit();
		this.#bodyFlows = true;
		this.#continue();
		req.on("data", (chunk: Buffer) => {
			this.#quietSweeps = 0;
			// Read to its end all the same, for the next request on the connection.
			if (this.exchange.ended || this.#request === undefined) return;
			this.exchange.bytesIn += chunk.length;
			this.#upload?.push(chunk);
			if (this.exchange.bytesIn > limit) this.#refuse(bodyTooLarge(limit));
			else if (chunk.length < smallPieceBytes) this.#gather(chunk);
			else {
				this.#sendSmall();
				this.#sendPiece(chunk);
			}
		});
		req.on("end", () => {
			this.#bodySent = true;
			this.#upload?.finish();
			if (this.exchange.ended) return;
			this.#sendSmall();
			if (this.#replyWaits) this.end();
			else this.#request?.endBody();
		});
	}

	#sendPiece(piece: Buffer): void {
		if (this.#request?.write(piece) !== false) return;
		this.#ollamaIsSlow = true;
		this.exchange.req.pause();
	}

	/** Keeps a small piece until the event loop's next turn, or until there are many. */
	#gather(piece: Buffer): void {
		if (this.#small.length === 0) setImmediate(() => this.#sendSmall());
		this.#small.push(piece);
		if (this.#small.length >= mostSmallPieces) this.#sendSmall();
	}

	#sendSmall(): void {
		if (this.#small.length === 0) return;
		const pieces = Buffer.concat(this.#small);
		this.#small = [];
		if (!this.exchange.ended) this.#sendPiece(pieces);
	}

	/**
	 * Nobody wants the rest of a body that is held back. It is read all the same for
	 * as long as the connection lingers: closed with bytes unread, it would be reset,
	 * and the answer lost.
	 */
	#dropRestOfBody(): void {
		if (this.#ollamaIsSlow) this.exchange.req.resume();
		this.#ollamaIsSlow = false;
	}

	/** Only now is the client told to send: whoever was refused before never had to. */
	#continue(): void {
		if (this.exchange.expectsContinue && !this.exchange.res.headersSent)
			this.exchange.res.writeContinue();
	}

	#send(path: string, body: UpstreamCall["body"]): void {
		const { exchange } = this;
		if (exchange.ended) return;
		const upstream = this.#upstreamNow();
		if (upstream.active >= upstream.maxConnections) {
			this.#refuse(busy(upstream.maxConnections));
			return;
		}
		this.#upstream = upstream;
		const { method } = this.#route;
		const { forwarded, contentEncoding } = exchange.head;
		// Any other was refused with the route.
		const headers =
			contentEncoding[0] === "zstd"
				? [...forwarded, "content-encoding", "zstd"]
				: forwarded;
		try {
			this.#request = upstream.send({ method, path, headers, body }, this);
		} catch (error) {
			if (!(error instanceof OddRequest)) throw error;
			// Node's parser lets no such character in. Should it ever, it gets no further.
			this.#refuse({
				status: 400,
				reason: "malformed",
				message: "a header of this request cannot be passed on",
			});
		}
		this.#quietSweeps = 0;
	}

	head({ status, headers }: ReplyHead): void {
		const { exchange } = this;
		if (exchange.ended) return;
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
		if (status === 200 && (this.#filter !== undefined || this.#waitsForBody()))
			this.#held = { headers, chunks: [], bytes: 0 };
		else this.#beginReply(headers);
	}

	/** Ollama, which has the file already, answers without reading it. */
	#waitsForBody(): boolean {
		return this.#upload !== undefined && !this.#bodySent;
	}

	#beginReply(headers: readonly string[], length?: number): void {
		const { exchange } = this;
		const { res, status } = exchange;
		const replyHeaders = forwardedHeaders(headers, status, length);
		this.#format = replyFormatOf(firstOf(replyHeaders, "content-type"));
		// nginx in front would gather a stream and pass it on in large pieces.
		if (this.#format !== "opaque") replyHeaders.push("x-accel-buffering", "no");
		this.#hasLength = firstOf(replyHeaders, "content-length") !== undefined;
		this.#scan = new ReplyScan(this.#route, this.#format);
		this.#framed = this.#hasLength || exchange.req.httpVersion === "1.1";
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

	data(buffer: Buffer, start: number, end: number): boolean {
		const { exchange } = this;
		if (exchange.ended) return true;
		this.#quietSweeps = 0;
		if (this.#held !== undefined) {
			this.#hold(this.#held, Buffer.from(buffer.subarray(start, end)));
			return true;
		}
		if (this.#pass(buffer, start, end)) return true;
		this.#clientIsSlow = true;
		exchange.res.once("drain", () => {
			this.#clientIsSlow = false;
			this.#quietSweeps = 0;
			this.#request?.resume();
		});
		return false;
	}

	/** Passes a piece on. Returns false if the client does not keep up. */
	#pass(buffer: Buffer, start: number, end: number): boolean {
		const { exchange } = this;
		if (exchange.bytesOut === 0)
			exchange.ttftMs = performance.now() - exchange.startedAtMs;
		exchange.bytesOut += end - start;
		this.#scan?.push(buffer, start, end);
		return this.#write(buffer, start, end);
	}

	/**
	 * Writes a piece of the reply's body as one string or buffer. Node would write
	 * a chunk as four pieces (size, line end, data, line end), and a small string
	 * costs less than a buffer, and is joined to the headers where it is the first.
	 * Latin-1 keeps every byte.
	 */
	#write(buffer: Buffer, start: number, end: number): boolean {
		const { res } = this.exchange;
		const length = end - start;
		const isSmall = length <= 4096;
		if (!this.#chunked)
			return isSmall
				? res.write(buffer.toString("latin1", start, end), "latin1")
				: res.write(Buffer.from(buffer.subarray(start, end)));
		// A chunk without data would be the reply's end.
		if (length === 0) return !res.writableNeedDrain;
		const size = `${length.toString(16)}\r\n`;
		if (isSmall)
			return res.write(
				`${size}${buffer.toString("latin1", start, end)}\r\n`,
				"latin1",
			);
		const chunk = Buffer.allocUnsafe(size.length + length + 2);
		chunk.write(size, "latin1");
		buffer.copy(chunk, size.length, start, end);
		chunk.write("\r\n", size.length + length, "latin1");
		return res.write(chunk);
	}

	/** A list is short, and must be whole before what the key may not see is taken out. */
	#hold(held: Held, chunk: Buffer): void {
		held.chunks.push(chunk);
		held.bytes += chunk.length;
		if (held.bytes > maxListBytes)
			this.#refuse(badGateway("upstream_garbage", "Ollama's list is too long"));
	}

	#sendHeld({ headers, chunks }: Held): void {
		const whole = Buffer.concat(chunks);
		const body = this.#filter === undefined ? whole : this.#filter(whole);
		if (body === undefined) {
			this.#refuse(
				badGateway("upstream_garbage", "Ollama's list cannot be read"),
			);
			return;
		}
		this.#beginReply(headers, body.length);
		if (this.exchange.ended) return;
		this.#pass(body, 0, body.length);
	}

	end(): void {
		const { exchange } = this;
		if (exchange.ended) return;
		if (this.#held !== undefined && this.#waitsForBody()) {
			this.#replyWaits = true;
			this.#dropRestOfBody();
			return;
		}
		if (this.#held !== undefined) this.#sendHeld(this.#held);
		// What was held may have turned out to be no list.
		if (exchange.ended) return;
		if (exchange.status < 400 && this.#scan?.isComplete === false) {
			exchange.reason = "upstream_truncated";
			this.#breakOff(
				"Ollama ended the stream before it was complete",
				"upstream_error",
				cutGraceMs,
			);
			return;
		}
		this.#finished = true;
		const outcome = this.#outcome();
		const ended = () => exchange.end(outcome);
		if (this.#chunked) exchange.res.write("0\r\n\r\n", "latin1");
		const leaves = leaveBody(exchange);
		endReply(exchange.res, () => {
			ended();
			if (leaves) exchange.req.socket.destroySoon();
		});
		this.#dropRestOfBody();
		lingerForBody(exchange.req);
	}

	/** How a reply that went through to its end is counted, with the reason where Ollama has failed. */
	#outcome(): Outcome {
		const { exchange } = this;
		if (exchange.status >= 500) {
			exchange.reason = "upstream_status";
			return "upstream_error";
		}
		if (exchange.status >= 400) return "rejected";
		if (this.#scan?.endsWithError !== true) return "ok";
		exchange.reason = "upstream_stream_error";
		return "upstream_error";
	}

	failed(fault: UpstreamFault): void {
		if (this.exchange.ended) return;
		this.#fail(describeFault(fault, this.#upstream?.name ?? "upstream.url"));
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
		if (this.#trickles(intervalMs)) {
			this.exchange.closing = true;
			this.#refuse({
				status: 408,
				reason: "body_stalled",
				message:
					"the request's body comes too slowly for one that is read whole",
			});
			return;
		}
		this.#quietSweeps += 1;
		const quietMs = this.#quietSweeps * intervalMs;
		if (quietMs < this.#patienceMs()) return;
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

	/**
	 * How long nothing may move now. Clients give up a silent stream after 300 s
	 * themselves; with the same figure here each end would blame the other.
	 */
	#patienceMs(): number {
		const { firstByteTimeoutMs, idleTimeoutMs } = this.#settings.upstream;
		if (this.#clientIsSlow || this.#finished || !this.#bodySent)
			return idleTimeoutMs;
		const longestMs = Math.max(firstByteTimeoutMs, idleTimeoutMs);
		if (this.#route.scope === "manage") return managementPatience * longestMs;
		return this.exchange.bytesOut === 0 ? firstByteTimeoutMs : longestMs;
	}

	/** Whether a large body that is read whole has brought too little for a while. */
	#trickles(intervalMs: number): boolean {
		if (this.#judgedBytes === 0 || this.#bodySent) return false;
		this.#windowSweeps += 1;
		const windowMs = this.#windowSweeps * intervalMs;
		const { idleTimeoutMs } = this.#settings.upstream;
		if (windowMs < Math.min(rateWindowMs, idleTimeoutMs)) return false;
		const came = this.exchange.bytesIn - this.#bytesBeforeWindow;
		this.#windowSweeps = 0;
		this.#bytesBeforeWindow = this.exchange.bytesIn;
		return came < (leastBytesPerSecond * windowMs) / 1000;
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
		if (this.#route.scope === "infer" && this.exchange.status < 400)
			this.exchange.usage = this.#scan?.usage();
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
		const mayTell =
			graceMs > 0 && !this.#hasLength && exchange.req.method !== "HEAD";
		const isResponses =
			this.#format === "sse" && this.#route.path === "/v1/responses";
		const text = mayTell ? this.#describeEnd(message, isResponses) : undefined;
		if (text !== undefined) {
			const last = Buffer.from(text);
			exchange.bytesOut += last.length;
			this.#write(last, 0, last.length);
		} else if (graceMs > 0) res.flushHeaders();
		exchange.end(outcome);
		if (text !== undefined && isResponses) this.#endCleanly(graceMs);
		else if (text !== undefined && this.#format === "sse")
			this.#closeLater(graceMs);
		else this.#closeSoon(graceMs);
	}

	/** The error as the stream's own last words. */
	#describeEnd(message: string, isResponses: boolean): string | undefined {
		const scan = this.#scan;
		if (!isResponses || scan === undefined)
			return streamError(
				this.exchange.family,
				this.#format,
				message,
				scan?.lastByte,
			);
		const { id, nextSequenceNumber } = scan.responseState;
		return responsesError(
			{
				id: id ?? `resp_${this.exchange.id}`,
				model: scan.usage().model,
				nextSequenceNumber,
			},
			message,
			scan.lastByte,
		);
	}

	/** The error has been told; who does not take it in time is cut off. */
	#endCleanly(graceMs: number): void {
		const { req, res } = this.exchange;
		if (this.#chunked) res.write("0\r\n\r\n", "latin1");
		const timer = setTimeout(() => req.socket.destroy(), graceMs);
		timer.unref();
		const leaves = leaveBody(this.exchange);
		endReply(res, () => {
			clearTimeout(timer);
			if (leaves) req.socket.destroySoon();
		});
		lingerForBody(req);
	}

	#closeLater(graceMs: number): void {
		const { connection, req } = this.exchange;
		// What a client has sent behind it has no answer any more.
		connection.closing = true;
		const timer = setTimeout(() => this.#closeSoon(graceMs), cutDelayMs);
		timer.unref();
		req.socket.once("close", () => clearTimeout(timer));
	}

	/** Closes the client's connection behind what was written, or after the grace without it. */
	#closeSoon(graceMs: number): void {
		const { socket } = this.exchange.req;
		if (socket.destroyed) return;
		if (graceMs === 0) return void socket.destroy();
		if (this.#framed) socket.destroySoon();
		else {
			// Without a length a clean close would be the reply's regular end (RFC 9112, 6.3).
			// A Unix socket knows no reset, and Node throws.
			const isLocal = this.exchange.connection.parsedAddress === localSource;
			socket.write("", () =>
				isLocal ? socket.destroy() : socket.resetAndDestroy(),
			);
		}
		const timer = setTimeout(() => socket.destroy(), graceMs);
		timer.unref();
		socket.once("close", () => clearTimeout(timer));
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

/** Puts what became of a request into words. */
function describeFault({ kind, detail }: UpstreamFault, name: string): Refusal {
	if (kind === "garbage")
		return badGateway(
			"upstream_garbage",
			`Ollama's answer was not valid HTTP: ${detail}`,
		);
	if (kind === "died")
		return badGateway(
			"upstream_died",
			"Ollama closed the connection in the middle of the request",
		);
	return badGateway(
		"upstream_unreachable",
		detail === "EMFILE" || detail === "ENFILE"
			? `llamagate has no file descriptor left to reach Ollama by (${detail})`
			: `llamagate cannot reach Ollama at ${name} (${detail}); is it running?`,
	);
}

/** The first value of a header. */
function firstOf(
	headers: readonly string[],
	wanted: string,
): string | undefined {
	for (let at = 0; at < headers.length; at += 2)
		if (headers[at] === wanted) return headers[at + 1];
	return undefined;
}

/** @param length of a body that is not Ollama's own */
function forwardedHeaders(
	headers: readonly string[],
	status: number,
	length: number | undefined,
): string[] {
	const forwarded: string[] = [];
	// RFC 9110, 8.6: a 204 must not have a length.
	const dropsLength = length !== undefined || status === 204;
	let options: Set<string> | undefined;
	for (let at = 0; at < headers.length; at += 2)
		if (headers[at] === "connection") {
			options ??= new Set();
			for (const option of (headers[at + 1] ?? "")
				.toLowerCase()
				.split(/[\s,]+/))
				options.add(option);
		}
	for (let at = 0; at < headers.length; at += 2) {
		const name = headers[at] ?? "";
		if (
			notForwarded.has(name) ||
			options?.has(name) === true ||
			(dropsLength && name === "content-length") ||
			name.startsWith("x-accel-") ||
			name.startsWith("access-control-") ||
			name.startsWith("ratelimit-")
		)
			continue;
		forwarded.push(name, headers[at + 1] ?? "");
	}
	if (length !== undefined) forwarded.push("content-length", String(length));
	return forwarded;
}

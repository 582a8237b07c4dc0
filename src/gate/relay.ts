import type { Route } from "../ollama/routes.ts";
import type { Ticket } from "../queue/ticket.ts";
import {
	OddRequest,
	type Upstream,
	type UpstreamCall,
	type UpstreamFault,
	type UpstreamRequest,
	type UpstreamSink,
} from "../upstream/client.ts";
import type { ReplyHead } from "../upstream/responseParser.ts";
import type { Facts } from "./bodyFacts.ts";
import type { Exchange, Outcome } from "./exchange.ts";
import { filterReply, type ReplyFilter } from "./modelPolicy.ts";
import { lingerForBody, type Refusal, sendRefusal } from "./refusal.ts";
import { type BodyReader, RequestBody } from "./requestBody.ts";
import { headersForOllama } from "./requestHead.ts";
import { formatOf, ResponseWriter } from "./responseWriter.ts";
import type { GateState } from "./state.ts";
import { type Turn, waitForTurn } from "./turn.ts";
import {
	badGateway,
	busy,
	describeFault,
	faultOf,
	redirected,
	stalled,
} from "./upstreamFault.ts";

/** The longest list of models that is filtered. */
const maxListBytes = 16 * 2 ** 20;
/** How long a client may take to read what it was sent before a cut. */
const cutGraceMs = 5_000;
/** Pulling and creating hash and convert large files without a word: how much longer they may be silent. */
const managementPatience = 4;

/** A reply that waits for its end. */
interface Held {
	readonly status: number;
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
export class Relay implements UpstreamSink, BodyReader, Turn {
	readonly exchange: Exchange;
	index = -1;
	readonly #state: GateState;
	/** As they were when it began: a reload changes no running relay's time limits. */
	readonly #timeouts: GateState["settings"]["upstream"];
	readonly #route: Route;
	readonly #body: RequestBody;
	readonly #reply: ResponseWriter;
	#upstream: Upstream | undefined;
	#request: UpstreamRequest | undefined;
	/** Takes models out of a list that the key may not see. */
	readonly #filter: ReplyFilter | undefined;
	#held: Held | undefined;
	/** The reply is whole, and waits for what shows that the client has the file. */
	#replyWaits = false;
	#clientIsSlow = false;
	/** The body, or how it will come, until it is its turn. */
	#unsent: UpstreamCall["body"];
	/** Its place in the queue, where there is one. */
	ticket: Ticket | undefined;
	/** Its turn has not come. */
	isWaiting = false;
	#fault: UpstreamFault["kind"] | undefined;
	/** Sweeps since anything moved; every byte sets it back. */
	#quietSweeps = 0;

	constructor(exchange: Exchange, state: GateState) {
		const { route } = exchange.routeMatch;
		this.exchange = exchange;
		this.#state = state;
		this.#timeouts = state.settings.upstream;
		this.#route = route;
		this.#reply = new ResponseWriter(exchange, route);
		this.#filter = filterReply(exchange.knownCredential.key, route);
		this.#body = new RequestBody(exchange, state, this);
		// However the exchange ends, nothing goes on upstream.
		exchange.atEnd((outcome) => {
			this.#reply.release();
			this.#leave(outcome);
			this.#body.dropRest();
			this.#body.release(this.#upstream !== undefined);
		});
	}

	/** What the reply calls the model, as soon as it does. */
	get replyModel(): string | undefined {
		return this.#reply.model;
	}

	/** Reads the request's body and sends it on. */
	start(): void {
		this.#body.start();
	}

	/** What there is to send is known. Step 6b, where the queue has a say in it. */
	send(body: UpstreamCall["body"], facts?: Facts): void {
		const { exchange } = this;
		const { queue } = this.#state;
		if (exchange.ended) return;
		this.#unsent = body;
		if (queue === undefined || facts === undefined) {
			this.#send();
			return;
		}
		this.isWaiting = true;
		this.ticket = waitForTurn(exchange, facts, queue, this);
		// It may have come to an end already.
		if (exchange.ended) this.ticket.end(faultOf(this.#fault));
	}

	go(): void {
		this.isWaiting = false;
		this.#send();
	}

	stillWaits(ahead: number): void {
		this.#reply.tellWaiting(ahead);
	}

	moved(): void {
		this.#quietSweeps = 0;
	}

	flowEnded(): void {
		if (this.#replyWaits) this.end();
		else this.#request?.endBody();
	}

	/** Nothing goes on upstream, unless others want the model that is being loaded. */
	#leave(outcome: Outcome): void {
		const isKept =
			outcome === "client_gone" &&
			this.#request !== undefined &&
			this.#body.isPassedOn &&
			this.ticket?.abandon() === true;
		if (!isKept) this.stop();
	}

	stop(): void {
		this.#request?.abort();
		this.ticket?.end(faultOf(this.#fault));
	}

	#send(): void {
		const { exchange } = this;
		if (exchange.ended) return;
		const body = this.#unsent;
		this.#unsent = undefined;
		// The one in force: a reload may have changed it until now.
		const { upstream } = this.#state;
		if (upstream.active >= upstream.maxConnections) {
			this.refuse(busy(upstream.maxConnections));
			return;
		}
		this.#upstream = upstream;
		const { method } = this.#route;
		const headers = headersForOllama(exchange.head);
		try {
			const written = () => this.#body.release(false);
			// As the route table matched it, to the letter.
			const { path } = exchange.routeMatch;
			const call = { method, path, headers, body, written };
			exchange.dispatchedAtMs = performance.now();
			this.#request = upstream.send(call, this);
		} catch (error) {
			if (!(error instanceof OddRequest)) throw error;
			// Node's parser lets no such character in. Should it ever, it gets no further.
			this.refuse({
				status: 400,
				reason: "malformed",
				message: "a header of this request cannot be passed on",
			});
		}
		this.#quietSweeps = 0;
	}

	ready(): void {
		if (!this.exchange.ended) this.#body.flow(this.#request);
	}

	head({ status, headers }: ReplyHead): void {
		const { exchange } = this;
		this.ticket?.answered(status, formatOf(headers) !== "opaque");
		this.#state.upstreamHealth.answered();
		if (exchange.ended) {
			this.stop();
			return;
		}
		this.#quietSweeps = 0;
		if (status >= 300 && status < 400) {
			this.refuse(redirected);
			return;
		}
		const held = { status, headers, chunks: [], bytes: 0 };
		if (this.#reply.isAnnounced) {
			if (status !== 200 || formatOf(headers) !== "sse") this.#held = held;
			return;
		}
		exchange.status = status;
		if (status === 200 && (this.#filter !== undefined || this.#waitsForBody()))
			this.#held = held;
		else this.#beginReply(headers);
	}

	/** Ollama, which has the file already, answers without reading it. */
	#waitsForBody(): boolean {
		return this.#body.upload !== undefined && !this.#body.isComplete;
	}

	#beginReply(headers: readonly string[], length?: number): void {
		if (this.#reply.begin(headers, length)) return;
		this.refuse(
			badGateway(
				"upstream_garbage",
				"Ollama sent a header that cannot be passed on",
			),
		);
	}

	data(buffer: Buffer, start: number, end: number): boolean {
		const { exchange } = this;
		if (exchange.ended) return true;
		this.#quietSweeps = 0;
		if (this.#held !== undefined) {
			this.#hold(this.#held, Buffer.from(buffer.subarray(start, end)));
			return true;
		}
		if (this.#reply.pass(buffer, start, end)) return true;
		this.#clientIsSlow = true;
		exchange.res.once("drain", () => {
			this.#clientIsSlow = false;
			this.#quietSweeps = 0;
			this.#request?.resume();
		});
		return false;
	}

	/** A list is short, and must be whole before what the key may not see is taken out. */
	#hold(held: Held, chunk: Buffer): void {
		held.chunks.push(chunk);
		held.bytes += chunk.length;
		if (held.bytes > maxListBytes)
			this.refuse(badGateway("upstream_garbage", "Ollama's list is too long"));
	}

	#sendHeld({ status, headers, chunks }: Held): void {
		const whole = Buffer.concat(chunks);
		if (this.#reply.isAnnounced) {
			this.#reply.breakOffBy(status, whole, cutGraceMs);
			return;
		}
		const body = this.#filter === undefined ? whole : this.#filter(whole);
		if (body === undefined) {
			this.refuse(
				badGateway("upstream_garbage", "Ollama's list cannot be read"),
			);
			return;
		}
		this.#beginReply(headers, body.length);
		if (!this.exchange.ended) this.#reply.pass(body, 0, body.length);
	}

	end(): void {
		const { exchange } = this;
		if (exchange.ended) return;
		if (this.#held !== undefined && this.#waitsForBody()) {
			this.#replyWaits = true;
			this.#body.dropRest();
			return;
		}
		if (this.#held !== undefined) this.#sendHeld(this.#held);
		// What was held may have turned out to be no list.
		if (exchange.ended) return;
		if (!this.#reply.isWhole) {
			exchange.reason = "upstream_truncated";
			this.#reply.breakOff(
				"Ollama ended the stream before it was complete",
				"upstream_error",
				cutGraceMs,
			);
			return;
		}
		this.#reply.end();
		this.#body.dropRest();
		lingerForBody(exchange.req);
	}

	failed(fault: UpstreamFault): void {
		this.#fault = fault.kind;
		if (fault.kind !== "garbage") this.#state.noteUpstreamFailure();
		if (this.exchange.ended) {
			this.stop();
			return;
		}
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
		if (this.#reply.hasEnded) {
			this.#reply.closeSoon(graceMs);
			return;
		}
		exchange.reason = why.reason;
		if (!this.#reply.hasBegun) {
			exchange.closing = true;
			sendRefusal(exchange, why);
			return;
		}
		this.#reply.breakOff(why.message, "cut", graceMs);
	}

	/**
	 * Looks after time: called for every relay at a fixed interval, so that a
	 * byte costs no timer. Ends what has stood still for too long.
	 */
	sweep(intervalMs: number): void {
		if (this.exchange.ended) return;
		if (this.#body.trickles(intervalMs, this.#timeouts.idleTimeoutMs)) {
			this.exchange.closing = true;
			this.refuse(stalled("comes too slowly for one that is read whole"));
			return;
		}
		// The queue looks after time itself.
		if (this.isWaiting) return;
		this.#quietSweeps += 1;
		const quietMs = this.#quietSweeps * intervalMs;
		if (quietMs < this.#patienceMs()) return;
		const { hasBegun, hasEnded } = this.#reply;
		if (this.#clientIsSlow || hasEnded) {
			this.exchange.reason = "client_stalled";
			this.#reply.breakOff("the client stopped reading", "cut", 0);
		} else if (
			!this.#body.isComplete &&
			!this.#body.upstreamIsSlow &&
			!hasBegun
		) {
			this.exchange.closing = true;
			this.refuse(stalled("stopped coming"));
		} else {
			const message = `Ollama sent nothing for ${Math.round(quietMs / 1000)} s`;
			this.#state.noteUpstreamFailure();
			this.#fail({ status: 504, reason: "upstream_timeout", message });
		}
	}

	/**
	 * How long nothing may move now. Clients give up a silent stream after 300 s
	 * themselves; with the same figure here each end would blame the other.
	 */
	#patienceMs(): number {
		const { firstByteTimeoutMs, idleTimeoutMs } = this.#timeouts;
		if (this.#clientIsSlow || this.#reply.hasEnded || !this.#body.isComplete)
			return idleTimeoutMs;
		const longestMs = Math.max(firstByteTimeoutMs, idleTimeoutMs);
		if (this.#route.scope === "manage") return managementPatience * longestMs;
		return this.exchange.bytesOut === 0 ? firstByteTimeoutMs : longestMs;
	}

	/** Ollama has failed: an error status if there is time for one, else the stream is broken off. */
	#fail(fault: Refusal): void {
		if (!this.#reply.hasBegun) {
			sendRefusal(this.exchange, fault);
			return;
		}
		this.exchange.reason = fault.reason;
		this.#reply.breakOff(fault.message, "upstream_error", cutGraceMs);
	}

	refuse(refusal: Refusal): void {
		if (this.exchange.ended) return;
		if (!this.#reply.hasBegun) {
			sendRefusal(this.exchange, refusal);
			return;
		}
		this.exchange.reason = refusal.reason;
		// Its reply is whole already, and waits for its turn behind another.
		if (this.#reply.hasEnded) this.#reply.closeSoon(0);
		else this.#reply.breakOff(refusal.message, "cut", cutGraceMs);
	}
}

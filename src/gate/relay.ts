import type { Route } from "../ollama/routes.ts";
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
import { type Carrier, Errand } from "./errand.ts";
import type { Exchange, Outcome } from "./exchange.ts";
import { isGivenUp } from "./givenUp.ts";
import { HeldReply } from "./heldReply.ts";
import { mergedAnswer } from "./mergedLists.ts";
import { filterReply, type ReplyFilter } from "./modelPolicy.ts";
import { upstreamPatienceMs } from "./patience.ts";
import { waitsBehindAnother, waitsBehindLive } from "./pipelined.ts";
import { lingerForBody, type Refusal, sendRefusal } from "./refusal.ts";
import { formatOf } from "./replyHead.ts";
import { type BodyReader, RequestBody } from "./requestBody.ts";
import { headersForOllama } from "./requestHead.ts";
import { ResponseWriter } from "./responseWriter.ts";
import type { GateState } from "./state.ts";
import { Stillness } from "./stillness.ts";
import {
	badGateway,
	busy,
	oddHeader,
	redirected,
	stalled,
} from "./upstreamFault.ts";

/** How long a client may take to read what it was sent before a cut. */
const cutGraceMs = 5_000;

/**
 * Step 7: one request to Ollama and its reply, bytes both ways.
 *
 * Not `reply.from`'s, which has nothing to abort by: a client that leaves while
 * a model loads would keep the GPU busy, and its headers would wait for the
 * first byte of the body.
 */
export class Relay implements UpstreamSink, BodyReader, Carrier {
	readonly exchange: Exchange;
	index = -1;
	readonly #state: GateState;
	/** As they were when it began: a reload changes no running relay's time limits. */
	readonly #timeouts: GateState["settings"]["upstream"];
	readonly #route: Route;
	readonly #body: RequestBody;
	readonly #reply: ResponseWriter;
	/** Where it goes, and when. */
	readonly errand: Errand;
	#upstream: Upstream | undefined;
	#request: UpstreamRequest | undefined;
	/** Takes models out of a list that the key may not see. */
	readonly #filter: ReplyFilter | undefined;
	#held: HeldReply | undefined;
	/** The reply is whole, and waits for what shows that the client has the file. */
	#replyWaits = false;
	#clientIsSlow = false;
	readonly #stillness = new Stillness();

	constructor(exchange: Exchange, state: GateState) {
		const { route } = exchange.routeMatch;
		this.exchange = exchange;
		this.#state = state;
		this.#timeouts = state.settings.upstream;
		this.#route = route;
		this.#reply = new ResponseWriter(exchange, route);
		this.#filter = filterReply(exchange.knownCredential.key, route);
		this.#body = new RequestBody(exchange, state, this);
		this.errand = new Errand(exchange, state, this);
		exchange.reply = this.#reply;
		// However the exchange ends, nothing goes on upstream.
		exchange.atEnd((outcome) => {
			this.#reply.release();
			this.#leave(outcome);
			this.errand.leave(outcome);
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

	/** What there is to send is known. */
	send(body: UpstreamCall["body"], facts?: Facts, beginning?: Buffer): void {
		this.errand.place(body, facts, beginning);
	}

	stillWaits(ahead: number): void {
		this.#reply.tellWaiting(ahead);
	}

	/** It is with Ollama, or answered: rules that a reload changes come too late for it. */
	get isSent(): boolean {
		return this.exchange.dispatchedAtMs !== undefined || this.#reply.hasEnded;
	}

	/** Its reply goes on: something of it has come in the last seconds. */
	get isHeard(): boolean {
		return this.#reply.hasBegun && this.#stillness.isShort && !this.#isHeldUp;
	}

	/** Nothing of it moves, since its client has another reply to read first. */
	get #isHeldUp(): boolean {
		const isStill = this.#clientIsSlow || this.#reply.hasEnded;
		return this.#body.isHeldUp || (isStill && waitsBehindLive(this.exchange));
	}

	maySendAgain(isKept: boolean): boolean {
		const { hasBegun, isAnnounced } = this.#reply;
		if ((hasBegun && !isAnnounced) || this.exchange.bytesOut > 0) return false;
		return isKept || this.#request === undefined;
	}

	abort(): void {
		this.#request?.abort();
		this.#request = undefined;
		this.#held = undefined;
	}

	answerMerged(): void {
		mergedAnswer(this.#state, this.exchange, this.#filter)
			.then((list) => {
				if (!Buffer.isBuffer(list)) this.refuse(list);
				else if (!this.exchange.ended) this.#reply.sendWhole(list);
			})
			.catch((error: unknown) => {
				this.#state.log.error({ err: error }, "lists could not be merged");
				this.refuse(badGateway("upstream_garbage", "the lists cannot be read"));
			});
	}

	moved(): void {
		this.#stillness.end();
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
			this.errand.abandon();
		if (!isKept) this.#stop();
	}

	#stop(): void {
		this.#request?.abort();
		this.errand.end();
	}

	dispatch(body: UpstreamCall["body"]): void {
		const { exchange } = this;
		if (exchange.ended) return;
		const { upstream } = this.errand;
		if (upstream.isFull) {
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
			this.refuse(oddHeader);
		}
		this.#stillness.end();
	}

	ready(): void {
		if (!this.exchange.ended) this.#body.flow(this.#request);
	}

	head({ status, headers }: ReplyHead): void {
		const { exchange } = this;
		if (!exchange.ended && !this.errand.mayPass(status)) return;
		this.errand.ticket?.answered(status, formatOf(headers) !== "opaque");
		this.#state.noteUpstreamAnswer();
		if (exchange.ended) {
			this.#stop();
			return;
		}
		this.#stillness.end();
		if (status >= 300 && status < 400) {
			this.refuse(redirected);
			return;
		}
		if (this.#reply.isAnnounced) {
			if (status !== 200 || formatOf(headers) !== "sse")
				this.#held = new HeldReply(status, headers);
			return;
		}
		exchange.status = status;
		if (status === 200 && (this.#filter !== undefined || this.#waitsForBody()))
			this.#held = new HeldReply(status, headers);
		else this.#beginReply(headers);
	}

	/** Ollama, which has the file already, answers without reading it. */
	#waitsForBody(): boolean {
		return this.#body.upload !== undefined && !this.#body.isComplete;
	}

	#beginReply(headers: readonly string[], length?: number): void {
		if (this.#reply.begin(headers, length)) return;
		this.#refuseGarbage("Ollama sent a header that cannot be passed on");
	}

	#refuseGarbage(message: string): void {
		this.refuse(badGateway("upstream_garbage", message));
	}

	data(buffer: Buffer, start: number, end: number): boolean {
		const { exchange } = this;
		if (exchange.ended) return true;
		this.#stillness.end();
		if (this.#held !== undefined) {
			// A list is short, and must be whole before what the key may not see is taken out.
			if (!this.#held.push(buffer, start, end))
				this.#refuseGarbage("Ollama's list is too long");
			return true;
		}
		const isLast = this.#request?.reader.ended === true;
		if (this.#reply.pass(buffer, start, end, isLast)) return true;
		this.#clientIsSlow = true;
		this.errand.ticket?.stalled();
		exchange.res.once("drain", () => {
			this.#clientIsSlow = false;
			this.#stillness.end();
			this.#request?.resume();
		});
		return false;
	}

	#sendHeld({ status, headers, whole }: HeldReply): void {
		if (this.#reply.isAnnounced) {
			this.#reply.breakOffBy(status, whole, cutGraceMs);
			return;
		}
		const body = this.#filter === undefined ? whole : this.#filter(whole);
		if (body === undefined) {
			this.#refuseGarbage("Ollama's list cannot be read");
			return;
		}
		this.#beginReply(headers, body.length);
		if (!this.exchange.ended) this.#reply.pass(body, 0, body.length, true);
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
		// Ollama is done, though its client may still read.
		this.errand.end();
		this.#body.dropRest();
		lingerForBody(exchange);
	}

	failed(fault: UpstreamFault): void {
		if (fault.kind !== "garbage") this.#state.noteUpstreamFailure();
		const name = this.#upstream?.name ?? "upstream.url";
		const refusal = this.errand.failed(fault, name);
		if (this.exchange.ended) this.#stop();
		else if (refusal !== undefined) this.refuse(refusal, "upstream_error");
	}

	/**
	 * Stops it for a reason of the gate's own: a revoked key, a shutdown. A whole reply
	 * is cut once it has the connection, which is another reply's before.
	 *
	 * @param why the reply, if none has begun; its message goes into the stream otherwise
	 * @param graceMs how long what was written may still flow before the connection is closed hard
	 */
	cut(why: Refusal, graceMs: number): void {
		const { exchange } = this;
		if (exchange.ended) return;
		if (!this.#reply.hasEnded) {
			exchange.parting ||= !this.#reply.hasBegun;
			this.refuse(why, "cut", graceMs);
		} else if (!waitsBehindAnother(exchange.res))
			this.#reply.closeSoon(graceMs);
	}

	/**
	 * Looks after time: called for every relay at a fixed interval, so that a
	 * byte costs no timer. Ends what has stood still for too long.
	 */
	sweep(intervalMs: number): void {
		if (this.exchange.ended || isGivenUp(this.exchange)) return;
		const { hasBegun, hasEnded } = this.#reply;
		if (
			!hasEnded &&
			this.#body.trickles(intervalMs, this.#timeouts.idleTimeoutMs)
		) {
			this.exchange.closing = true;
			this.refuse(stalled("comes too slowly: 16 KiB a second are the least"));
			return;
		}
		// Turns have time limits of their own, or none.
		if (this.errand.isWaiting || this.#body.isUnpacking) return;
		if (this.#isHeldUp) return void this.#stillness.end();
		const quietMs = this.#stillness.goesOn(intervalMs);
		if (quietMs < this.#patienceMs()) return;
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
			if (!this.errand.wentSilent(message))
				this.refuse(
					{ status: 504, reason: "upstream_timeout", message },
					"upstream_error",
				);
		}
	}

	/** How long nothing may move now. */
	#patienceMs(): number {
		if (this.#clientIsSlow || this.#reply.hasEnded || !this.#body.isComplete)
			return this.#timeouts.idleTimeoutMs;
		return upstreamPatienceMs(this.exchange, this.#timeouts);
	}

	/**
	 * Answers in place of Ollama: by a status if there is time, else it breaks the stream off.
	 *
	 * @param outcome of a stream that is broken off
	 * @param graceMs how long its last words may take
	 */
	refuse(
		refusal: Refusal,
		outcome: Outcome = "cut",
		graceMs = cutGraceMs,
	): void {
		// One that is whole has been answered: of the rest of its body nothing is wanted.
		if (this.exchange.ended || this.#reply.hasEnded) return;
		if (!this.#reply.hasBegun) {
			sendRefusal(this.exchange, refusal);
			return;
		}
		this.exchange.reason = refusal.reason;
		this.#reply.breakOff(refusal.message, outcome, graceMs);
	}
}

import { type Route, smallBodyBytes } from "../ollama/routes.ts";
import type { UpstreamCall, UpstreamRequest } from "../upstream/client.ts";
import { type BodyGuard, guardBody } from "./bodyGuard.ts";
import type { Exchange } from "./exchange.ts";
import { bodyTooLarge } from "./rateLimit.ts";
import type { Refusal } from "./refusal.ts";
import { bodyLengthOf, bodyLimitOf } from "./route.ts";
import type { GateState } from "./state.ts";
import type { Upload } from "./uploads.ts";
import { WholeBody, wholeBodyBytes } from "./wholeBody.ts";

/** Pieces of a body that are smaller go on together: each write costs as much as one of some thousand bytes. */
const smallPieceBytes = 1024;
const mostSmallPieces = 1000;
/** What must come of a large body that waits for a rule, or it gives up its room. */
const leastBytesPerSecond = 16 * 1024;
const rateWindowMs = 30_000;

const tooManyLargeBodies: Refusal = {
	status: 503,
	reason: "busy",
	message: "too many large bodies are being read; try again",
	headers: ["retry-after", "5"],
};

/** What a body is read for. */
interface Reader {
	/** What goes to Ollama is known: nothing, the whole body, or how it will come. */
	send(body: UpstreamCall["body"]): void;
	refuse(refusal: Refusal): void;
	/** Some of it has come. */
	moved(): void;
	/** All of it has come that flows; what follows is up to the reader. */
	flowEnded(): void;
}

/**
 * A request's body on its way to Ollama: read whole where it is small, or where a
 * rule of the key's must see it before Ollama does, and passed on as it comes otherwise.
 */
export class RequestBody {
	/** All of it has been read. */
	isComplete = false;
	/** Ollama takes no more of it for now. */
	upstreamIsSlow = false;
	readonly #exchange: Exchange;
	readonly #state: GateState;
	readonly #reader: Reader;
	/** The key's name. */
	readonly #key: string;
	readonly #limitBytes: number;
	/** For all judged bodies together. */
	readonly #roomBytes: number;
	/** Reads the body where a rule of the key's depends on it. */
	readonly #guard: BodyGuard | undefined;
	/** Reads along a file that the key is to have sent itself. */
	readonly upload: Upload | undefined;
	/** The body, where it is read whole. */
	#whole: WholeBody | undefined;
	/** What is held for it of the room for judged bodies. */
	#judgedBytes = 0;
	/** The body is held back until its turn. */
	#waitsForTurn = false;
	/** Of a large body that is judged: sweeps in this window, and bytes before it. */
	#windowSweeps = 0;
	#bytesBeforeWindow = 0;
	/** It is passed on as it comes. */
	#flowsTo: UpstreamRequest | undefined;
	/** Small pieces that go on together. */
	#small: Buffer[] = [];

	constructor(
		exchange: Exchange,
		route: Route,
		path: string,
		state: GateState,
		reader: Reader,
	) {
		const credential = exchange.knownCredential;
		this.#exchange = exchange;
		this.#state = state;
		this.#reader = reader;
		this.#key = credential.key.name;
		const { bodyBytes } = state.settings.limits;
		this.#limitBytes = bodyLimitOf(route, bodyBytes, smallBodyBytes);
		this.#roomBytes = 2 * bodyBytes;
		this.#guard = guardBody(credential, route, exchange.head, state.uploads);
		this.upload = state.uploads.watch(credential, route, path);
	}

	/** Has it read as far as that needs no connection to Ollama. */
	start(): void {
		const { head, req } = this.#exchange;
		const length = bodyLengthOf(head);
		if (length === 0 && this.#guard === undefined) {
			// Nothing follows the head, but the parser must reach the message's end for the next request.
			req.resume();
			this.isComplete = true;
			this.#reader.send(undefined);
		} else if (this.#guard !== undefined || length <= wholeBodyBytes)
			this.#readWhole(length);
		else this.#reader.send({ length: head.contentLength[0] ?? "chunked" });
	}

	/** There is a connection to Ollama, or room in it again: the body flows. */
	flow(upstream: UpstreamRequest | undefined): void {
		if (this.#flowsTo === undefined && upstream !== undefined)
			this.#pass(upstream);
		this.upstreamIsSlow = false;
		this.#exchange.req.resume();
	}

	/**
	 * Has the rest of a body read that is held back and that nobody wants, for as
	 * long as the connection lingers: closed with bytes unread, it would be reset,
	 * and the answer lost.
	 */
	dropRest(): void {
		if (this.upstreamIsSlow) this.#exchange.req.resume();
		this.upstreamIsSlow = false;
	}

	/** Gives back what is held for it. @param isSent whether its memory is Ollama's connection's now */
	release(isSent: boolean): void {
		this.#state.judgedBodies.give(this.#key, this.#judgedBytes);
		if (!isSent) this.#whole?.release();
	}

	/** Whether a large body that is read whole has brought too little for a while. */
	trickles(intervalMs: number, idleTimeoutMs: number): boolean {
		// While it waits for its turn, nothing can come of it.
		if (this.#judgedBytes === 0 || this.isComplete || this.#waitsForTurn)
			return false;
		this.#windowSweeps += 1;
		const windowMs = this.#windowSweeps * intervalMs;
		if (windowMs < Math.min(rateWindowMs, idleTimeoutMs)) return false;
		const { bytesIn } = this.#exchange;
		const came = bytesIn - this.#bytesBeforeWindow;
		this.#windowSweeps = 0;
		this.#bytesBeforeWindow = bytesIn;
		return came < (leastBytesPerSecond * windowMs) / 1000;
	}

	#readWhole(length: number): void {
		const exchange = this.#exchange;
		const { req } = exchange;
		const whole = new WholeBody(length, this.#limitBytes);
		this.#whole = whole;
		this.#continue();
		req.on("data", (piece: Buffer) => {
			this.#reader.moved();
			if (exchange.ended || !this.#count(piece)) return;
			if (this.#guard === undefined) whole.push(piece);
			else if (this.#takeRoom()) this.#judge(this.#guard, piece, whole);
			else return;
			this.upload?.push(piece);
		});
		req.on("end", () => {
			if (exchange.ended) return;
			const body = whole.bytes;
			this.isComplete = true;
			this.upload?.finish();
			const proceed = (refusal: Refusal | undefined) => {
				if (refusal === undefined) this.#reader.send(body);
				else this.#reader.refuse(refusal);
			};
			const verdict = this.#guard?.finish(body);
			if (verdict instanceof Promise) void verdict.then(proceed);
			else proceed(verdict);
		});
	}

	/** Returns false if there is more of it than may be. */
	#count(piece: Buffer): boolean {
		this.#exchange.bytesIn += piece.length;
		if (this.#exchange.bytesIn <= this.#limitBytes) return true;
		this.#reader.refuse(bodyTooLarge(this.#limitBytes));
		return false;
	}

	/** Bodies that wait for a rule stand in memory, so all of them together may have only so much of it. */
	#takeRoom(): boolean {
		const held = this.#state.judgedBodies.take(
			this.#key,
			this.#exchange.bytesIn,
			this.#judgedBytes,
			this.#roomBytes,
		);
		if (held === undefined) this.#reader.refuse(tooManyLargeBodies);
		else this.#judgedBytes = held;
		return held !== undefined;
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
		const { req } = this.#exchange;
		this.#waitsForTurn = true;
		req.pause();
		const { judgedBodies } = this.#state;
		judgedBodies.inTurn(this.#key, piece.length, judge, () => {
			this.#waitsForTurn = false;
			req.resume();
		});
	}

	#pass(upstream: UpstreamRequest): void {
		const exchange = this.#exchange;
		const { req } = exchange;
		this.#flowsTo = upstream;
		this.#continue();
		req.on("data", (piece: Buffer) => {
			this.#reader.moved();
			// Read to its end all the same, for the next request on the connection.
			if (exchange.ended) return;
			this.upload?.push(piece);
			if (!this.#count(piece)) return;
			if (piece.length < smallPieceBytes) this.#gather(piece);
			else {
				this.#sendSmall();
				this.#sendPiece(piece);
			}
		});
		req.on("end", () => {
			this.isComplete = true;
			this.upload?.finish();
			if (exchange.ended) return;
			this.#sendSmall();
			this.#reader.flowEnded();
		});
	}

	#sendPiece(piece: Buffer): void {
		if (this.#flowsTo?.write(piece) !== false) return;
		this.upstreamIsSlow = true;
		this.#exchange.req.pause();
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
		if (!this.#exchange.ended) this.#sendPiece(pieces);
	}

	/** Only now is the client told to send: one that was refused before never had to. */
	#continue(): void {
		const { expectsContinue, res } = this.#exchange;
		if (expectsContinue && !res.headersSent) res.writeContinue();
	}
}

import type { Route } from "../ollama/routes.ts";
import type { UpstreamCall, UpstreamRequest } from "../upstream/client.ts";
import {
	type Facts,
	type FactsReader,
	factsOfWhole,
	readFacts,
} from "./bodyFacts.ts";
import { type BodyGuard, guardBody } from "./bodyGuard.ts";
import { bodyLimitOf, bodyTooLarge } from "./bodyLimit.ts";
import { holdLittle } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";
import { bodyLengthOf } from "./route.ts";
import type { GateState } from "./state.ts";
import type { Upload } from "./uploads.ts";
import { WholeBody, wholeBodyBytes } from "./wholeBody.ts";

/** Pieces of a body that are smaller go on together: each write costs as much as one of some thousand bytes. */
const smallPieceBytes = 1024;
const mostSmallPieces = 1000;
/** As much of a large body is held while it waits for its turn, where it need not be judged. */
const aheadBytes = 512 * 1024;
/** What must come of a large body that waits for a rule, or it gives up its room. */
const leastBytesPerSecond = 16 * 1024;
const rateWindowMs = 30_000;

const tooManyLargeBodies: Refusal = {
	status: 503,
	reason: "busy",
	message: "too many large bodies are being read; try again",
	headers: ["retry-after", "5"],
};

/** Which host a request goes to depends on the model that it names. */
function modelDecides({ scope, path }: Route): boolean {
	return scope === "infer" || path === "/api/show";
}

/** What a body is read for. */
export interface BodyReader {
	/**
	 * What goes to Ollama is known: nothing, the whole body, or how it will come.
	 *
	 * @param facts what the queue goes by, where there is one and the body is for it
	 * @param beginning what has come of the body, where there are facts
	 */
	send(body: UpstreamCall["body"], facts?: Facts, beginning?: Buffer): void;
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
	readonly #reader: BodyReader;
	/** The key's name. */
	readonly #key: string;
	readonly #limitBytes: number;
	/** For all judged bodies together. */
	readonly #roomBytes: number;
	/** Reads the body where a rule of the key's depends on it. */
	readonly #guard: BodyGuard | undefined;
	/** The queue, or the choice of a host, goes by what is in the body. */
	readonly #isQueued: boolean;
	/** Reads along a file that the key is to have sent itself. */
	readonly upload: Upload | undefined;
	/** The body, where it is read whole. */
	#whole: WholeBody | undefined;
	/** What is held for it of the room for judged bodies. */
	#judgedBytes = 0;
	/** The body is held back until its turn. */
	#waitsForTurn = false;
	/** Of a large body that is judged: whole intervals in this window, which a sweep begins, and bytes before it. */
	#windowSweeps = -1;
	#bytesBeforeWindow = 0;
	/** Enough of it has come to know what the queue goes by. */
	#isAnnounced = false;
	/** It goes on as it comes, once there is a connection to Ollama. */
	#comesLater = false;
	/** The client has been told to send it. */
	#isWanted = false;
	/** It is passed on as it comes. */
	#flowsTo: UpstreamRequest | undefined;
	/** Small pieces that go on together. */
	#small: Buffer[] = [];

	constructor(exchange: Exchange, state: GateState, reader: BodyReader) {
		const { route, path } = exchange.routeMatch;
		const credential = exchange.knownCredential;
		this.#exchange = exchange;
		this.#state = state;
		this.#reader = reader;
		this.#key = credential.key.name;
		const { bodyBytes } = state.settings.limits;
		this.#limitBytes = bodyLimitOf(route, bodyBytes);
		this.#roomBytes = 2 * bodyBytes;
		this.#guard = guardBody(credential, route, exchange.head, state.uploads);
		this.#isQueued =
			(state.queue !== undefined && route.scope === "infer") ||
			(state.pool !== undefined && modelDecides(route));
		this.upload = state.uploads.watch(credential, route, path);
	}

	/** All of it is with Ollama, or goes there without the client. */
	get isPassedOn(): boolean {
		return (
			this.isComplete && (!this.#comesLater || this.#flowsTo !== undefined)
		);
	}

	/** Has it read as far as that needs no connection to Ollama. */
	start(): void {
		const { head, req } = this.#exchange;
		const length = bodyLengthOf(head);
		if (length > 0) holdLittle(req);
		if (length === 0 && this.#guard === undefined) {
			// Nothing follows the head, but the parser must reach the message's end for the next request.
			req.resume();
			this.isComplete = true;
			this.#reader.send(undefined);
		} else if (this.#guard !== undefined || length <= wholeBodyBytes)
			this.#readWhole(length);
		else if (this.#isQueued) this.#readAhead(length);
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

	/** Gives back what is held for it. @param isSent whether Ollama's connection may still read its memory */
	release(isSent: boolean): void {
		this.#state.judgedBodies.give(this.#key, this.#judgedBytes);
		this.#judgedBytes = 0;
		if (!isSent) this.#whole?.release();
	}

	/** Whether a large body that is read whole has brought too little for a while. */
	trickles(intervalMs: number, idleTimeoutMs: number): boolean {
		// While it waits for its turn, nothing can come of it.
		if (
			this.#judgedBytes === 0 ||
			this.isComplete ||
			this.#waitsForTurn ||
			this.#isAnnounced
		)
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
		// A large one is read as it comes, as all at once would take the others' time.
		const isLarge = length > wholeBodyBytes;
		const facts = isLarge ? this.#readFacts() : undefined;
		this.#continue();
		req.on("data", (piece: Buffer) => {
			this.#reader.moved();
			if (exchange.ended || !this.#count(piece)) return;
			const hasRoom = !isLarge || this.#takeRoom();
			if (!hasRoom || !whole.makeRoom(exchange.bytesIn))
				return void this.#reader.refuse(tooManyLargeBodies);
			if (isLarge) this.#inTurn(piece, whole, [this.#guard, facts]);
			else whole.push(piece);
			this.upload?.push(piece);
			whole.letGo(piece);
		});
		req.on("end", () => {
			if (exchange.ended) return;
			const body = whole.bytes;
			this.isComplete = true;
			this.upload?.finish();
			const proceed = (refusal: Refusal | undefined) => {
				if (refusal === undefined) this.#sendWhole(body, facts);
				else this.#reader.refuse(refusal);
			};
			const verdict = this.#guard?.finish(body);
			if (verdict instanceof Promise) void verdict.then(proceed);
			else proceed(verdict);
		});
	}

	#readFacts(): FactsReader | undefined {
		const { routeMatch, head } = this.#exchange;
		return this.#isQueued ? readFacts(routeMatch.route, head) : undefined;
	}

	/** @param facts what has read it, if it was read as it came */
	#sendWhole(body: Buffer, facts: FactsReader | undefined): void {
		const { routeMatch, head } = this.#exchange;
		const found =
			facts?.finish(body) ??
			(this.#isQueued ? factsOfWhole(routeMatch.route, head, body) : undefined);
		if (found instanceof Promise)
			void found.then((late) => this.#reader.send(body, late, body));
		else this.#reader.send(body, found, body);
	}

	/**
	 * Reads a large body that no rule looks at until it is known what the queue goes
	 * by, and holds that much of it until its turn has come.
	 */
	#readAhead(length: number): void {
		const exchange = this.#exchange;
		const { req, head } = exchange;
		const facts = readFacts(exchange.routeMatch.route, head);
		const whole = new WholeBody(length, this.#limitBytes);
		this.#whole = whole;
		this.#continue();
		const announce = (found: Facts) => {
			if (this.#isAnnounced) return;
			this.#isAnnounced = true;
			this.#comesLater = true;
			const length = head.contentLength[0] ?? "chunked";
			this.#reader.send({ length }, found, whole.bytes);
		};
		req.on("data", (piece: Buffer) => {
			if (this.#flowsTo !== undefined) return void this.#passPiece(piece);
			this.#reader.moved();
			if (exchange.ended || !this.#count(piece)) return;
			const hasRoom = this.#takeRoom();
			if (!whole.makeRoom(exchange.bytesIn))
				return void this.#reader.refuse(tooManyLargeBodies);
			if (this.#isAnnounced || facts.early !== undefined) whole.push(piece);
			else this.#inTurn(piece, whole, [facts]);
			whole.letGo(piece);
			// Of a packed body nothing is known before its end.
			const { soFar } = facts;
			const isFull = !hasRoom || whole.length >= aheadBytes;
			if (isFull && (this.#isAnnounced || soFar.model !== undefined)) {
				this.upstreamIsSlow = true;
				req.pause();
				announce(soFar);
			} else if (facts.early !== undefined) announce(facts.early);
			else if (!hasRoom) this.#reader.refuse(tooManyLargeBodies);
		});
		req.on("end", () => {
			this.isComplete = true;
			if (exchange.ended) return;
			if (this.#flowsTo !== undefined) this.#endFlow();
			else if (!this.#isAnnounced) {
				this.#isAnnounced = true;
				this.#sendWhole(whole.bytes, facts);
			}
		});
	}

	/** Returns false if there is more of it than may be. */
	#count(piece: Buffer): boolean {
		this.#exchange.bytesIn += piece.length;
		if (this.#exchange.bytesIn <= this.#limitBytes) return true;
		this.#reader.refuse(bodyTooLarge(this.#limitBytes));
		return false;
	}

	/** Bodies that wait stand in memory, so all of them together may have only so much of it. */
	#takeRoom(): boolean {
		const held = this.#state.judgedBodies.take(
			this.#key,
			this.#exchange.bytesIn,
			this.#judgedBytes,
			this.#roomBytes,
		);
		if (held !== undefined) this.#judgedBytes = held;
		return held !== undefined;
	}

	/** A large body takes the event loop's time in small parts. */
	#inTurn(
		piece: Buffer,
		whole: WholeBody,
		readers: readonly (BodyGuard | FactsReader | undefined)[],
	): void {
		const judge = () => {
			for (const reader of readers) reader?.push(piece);
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
		const { req } = this.#exchange;
		this.#flowsTo = upstream;
		if (this.#whole !== undefined) {
			this.#passHeld(this.#whole);
			return;
		}
		this.#continue();
		req.on("data", (piece: Buffer) => this.#passPiece(piece));
		req.on("end", () => {
			this.isComplete = true;
			this.upload?.finish();
			if (!this.#exchange.ended) this.#endFlow();
		});
	}

	/** What was held until its turn goes first. */
	#passHeld(whole: WholeBody): void {
		this.#whole = undefined;
		this.#sendPiece(whole.bytes);
		const { judgedBodies } = this.#state;
		judgedBodies.give(this.#key, this.#judgedBytes);
		this.#judgedBytes = 0;
		if (this.isComplete) this.#endFlow();
	}

	#passPiece(piece: Buffer): void {
		this.#reader.moved();
		// Read to its end all the same, for the next request on the connection.
		if (this.#exchange.ended) return;
		this.upload?.push(piece);
		if (!this.#count(piece)) return;
		if (piece.length < smallPieceBytes) this.#gather(piece);
		else {
			this.#sendSmall();
			this.#sendPiece(piece);
		}
	}

	#endFlow(): void {
		this.#sendSmall();
		this.#reader.flowEnded();
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
		if (this.#isWanted) return;
		this.#isWanted = true;
		if (expectsContinue && !res.headersSent) res.writeContinue();
	}
}

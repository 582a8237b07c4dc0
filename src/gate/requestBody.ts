import type { UpstreamCall, UpstreamRequest } from "../upstream/client.ts";
import {
	type Facts,
	type FactsReader,
	factsOfWhole,
	goesByBody,
	readFacts,
} from "./bodyFacts.ts";
import { type BodyGuard, guardBody } from "./bodyGuard.ts";
import { bodyLimitOf, bodyTooLarge, tooManyLargeBodies } from "./bodyLimit.ts";
import { holdLittle } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import { LeastRate } from "./leastRate.ts";
import { isPacked, readPacked } from "./packedBody.ts";
import { waitsBehindLive, whenInTurn } from "./pipelined.ts";
import type { Refusal } from "./refusal.ts";
import { bodyLengthOf } from "./route.ts";
import { SmallPieces } from "./smallPieces.ts";
import type { GateState } from "./state.ts";
import type { Upload } from "./uploads.ts";
import { WholeBody, wholeBodyBytes } from "./wholeBody.ts";

/** So much of a large body that need not be judged takes of all the room; what follows of half of it. */
const aheadBytes = 512 * 1024;

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
	/** It is whole, and waits for its turn to be unpacked and read. */
	isUnpacking = false;
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
	/** It is read as what it becomes, once it is whole. */
	readonly #isUnpacked: boolean;
	/** Reads along a file that the key is to have sent itself. */
	readonly upload: Upload | undefined;
	/** The body, where it is read whole. */
	#whole: WholeBody | undefined;
	/** What is held for it of the room for judged bodies. */
	#judgedBytes = 0;
	/** The body is held back until the event loop has time for it. */
	#waitsForTurn = false;
	/** Of a large body that is held or whose turn it is. */
	#rate: LeastRate | undefined;
	/** The queue knows of it before its end: the rest goes on as it comes, once there is a connection to Ollama. */
	#comesLater = false;
	/** The client has been told to send it. */
	#isWanted = false;
	/** It is passed on as it comes. */
	#flowsTo: UpstreamRequest | undefined;
	#pieces: SmallPieces | undefined;

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
		this.#isQueued = goesByBody(state, route);
		const isRead = this.#guard !== undefined || this.#isQueued;
		this.#isUnpacked = isRead && isPacked(route, exchange.head);
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

	/**
	 * Its client can send none of it before a reply in front has left: it was not told to
	 * yet, or Node reads no more of the connection while so much waits to be written on it.
	 */
	get isHeldUp(): boolean {
		const { expectsContinue, bytesIn, req } = this.#exchange;
		if (this.isComplete || this.upstreamIsSlow) return false;
		const isUntold = expectsContinue && bytesIn === 0;
		return (
			(isUntold || req.socket.isPaused()) && waitsBehindLive(this.#exchange)
		);
	}

	/** Whether a large body that is held, or whose turn it is, has brought too little for a while. */
	trickles(intervalMs: number, idleTimeoutMs: number): boolean {
		if (this.isComplete || this.#waitsForTurn) return false;
		if (this.upstreamIsSlow) {
			// While it is held back, nothing can come of it.
			this.#readOn();
			return false;
		}
		const hasTurn = this.#comesLater && this.#flowsTo !== undefined;
		// For a place that others wait for, the reply in front is no excuse; it may wait for that, too.
		if (!hasTurn && this.isHeldUp) return false;
		if (this.#judgedBytes === 0 && !hasTurn) return false;
		const { bytesIn } = this.#exchange;
		this.#rate ??= new LeastRate(bytesIn);
		return this.#rate.isTooLow(bytesIn, intervalMs, idleTimeoutMs);
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
			const hasRoom = !isLarge || this.#takeRoom(false);
			if (!hasRoom || !whole.makeRoom(exchange.bytesIn))
				return void this.#reader.refuse(tooManyLargeBodies);
			if (isLarge) this.#inTurn(piece, whole, facts);
			else whole.push(piece);
			this.upload?.push(piece);
			whole.letGo(piece);
		});
		req.on("end", () => {
			if (exchange.ended) return;
			this.isComplete = true;
			this.upload?.finish();
			this.#finishWhole(whole.bytes, facts);
		});
	}

	#readFacts(): FactsReader | undefined {
		const { routeMatch, head } = this.#exchange;
		return this.#isQueued ? readFacts(routeMatch.route, head) : undefined;
	}

	/** @param facts what has read along, if it was read as it came */
	#finishWhole(body: Buffer, facts: FactsReader | undefined): void {
		if (this.#isUnpacked) return void this.#unpack(body, facts);
		const refusal = this.#guard?.finish(body);
		if (refusal !== undefined) return void this.#reader.refuse(refusal);
		const { routeMatch, head } = this.#exchange;
		const found =
			facts?.finish() ??
			(this.#isQueued ? factsOfWhole(routeMatch.route, head, body) : undefined);
		this.#reader.send(body, found, body);
	}

	async #unpack(body: Buffer, facts = this.#readFacts()): Promise<void> {
		const readers = { guard: this.#guard, facts };
		this.isUnpacking = true;
		const finds = await readPacked(this.#exchange, this.#state, body, readers);
		this.isUnpacking = false;
		if (finds === undefined) return;
		if (finds.refusal === undefined) this.#reader.send(body, finds.facts, body);
		else this.#reader.refuse(finds.refusal);
	}

	/**
	 * Reads a large body that no rule looks at. Ollama cannot begin before its end,
	 * so it takes no turn before: only where room is lacking, the rest comes when its
	 * turn has come.
	 */
	#readAhead(length: number): void {
		const exchange = this.#exchange;
		const { req, head } = exchange;
		const facts = readFacts(exchange.routeMatch.route, head);
		const whole = new WholeBody(length, this.#limitBytes);
		this.#whole = whole;
		this.#continue();
		req.on("data", (piece: Buffer) => {
			if (this.#flowsTo !== undefined) return void this.#passPiece(piece);
			this.#reader.moved();
			if (exchange.ended || !this.#count(piece)) return;
			// Of a packed body nothing is known before its end.
			const hasRoom = this.#takeRoom(facts.soFar.model !== undefined);
			if (!whole.makeRoom(exchange.bytesIn))
				return void this.#reader.refuse(tooManyLargeBodies);
			if (facts.early !== undefined) whole.push(piece);
			else this.#inTurn(piece, whole, facts);
			whole.letGo(piece);
			if (!hasRoom) this.#holdBack(whole, facts.soFar);
		});
		req.on("end", () => {
			this.isComplete = true;
			if (exchange.ended) return;
			if (this.#flowsTo !== undefined) this.#endFlow();
			else if (!this.#comesLater) this.#finishWhole(whole.bytes, facts);
		});
	}

	/** There is no room for more of it: it waits for its turn as it is, if it is known for what. */
	#holdBack(whole: WholeBody, facts: Facts): void {
		if (facts.model === undefined)
			return void this.#reader.refuse(tooManyLargeBodies);
		this.upstreamIsSlow = true;
		this.#exchange.req.pause();
		if (this.#comesLater) return;
		this.#comesLater = true;
		const length = this.#exchange.head.contentLength[0] ?? "chunked";
		this.#reader.send({ length }, facts, whole.bytes);
	}

	/** Goes on with one that was held back, if there is room by now. */
	#readOn(): void {
		if (this.#flowsTo !== undefined || !this.#takeRoom(true)) return;
		this.upstreamIsSlow = false;
		this.#exchange.req.resume();
	}

	/** Returns false if there is more of it than may be. */
	#count(piece: Buffer): boolean {
		this.#exchange.bytesIn += piece.length;
		if (this.#exchange.bytesIn <= this.#limitBytes) return true;
		this.#reader.refuse(bodyTooLarge(this.#limitBytes));
		return false;
	}

	/**
	 * Bodies that wait stand in memory, so all of them together may have only so much of it.
	 *
	 * @param mayLack it can do with less, and leaves half of the room to those that cannot
	 */
	#takeRoom(mayLack: boolean): boolean {
		const { bytesIn } = this.#exchange;
		const isModest = mayLack && bytesIn > aheadBytes;
		const held = this.#state.judgedBodies.take(
			this.#key,
			bytesIn,
			this.#judgedBytes,
			isModest ? this.#roomBytes / 2 : this.#roomBytes,
		);
		if (held !== undefined) this.#judgedBytes = held;
		return held !== undefined;
	}

	/** A large body takes the event loop's time in small parts. */
	#inTurn(piece: Buffer, whole: WholeBody, facts?: FactsReader): void {
		const judge = () => {
			if (!this.#isUnpacked) {
				this.#guard?.push(piece);
				facts?.push(piece);
			}
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
			// It may have been held back meanwhile.
			if (!this.upstreamIsSlow) req.resume();
		});
	}

	#pass(upstream: UpstreamRequest): void {
		const { req } = this.#exchange;
		this.#flowsTo = upstream;
		this.#pieces = new SmallPieces((pieces) => this.#sendPiece(pieces));
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
		this.#rate = undefined;
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
		if (this.#count(piece)) this.#pieces?.push(piece);
	}

	#endFlow(): void {
		this.#pieces?.flush();
		this.#reader.flowEnded();
	}

	#sendPiece(piece: Buffer): void {
		if (this.#exchange.ended || this.#flowsTo?.write(piece) !== false) return;
		this.upstreamIsSlow = true;
		this.#exchange.req.pause();
	}

	/** Only now, or in its reply's turn, is the client told to send: one that was refused before never had to. */
	#continue(): void {
		const { expectsContinue, res } = this.#exchange;
		if (this.#isWanted) return;
		this.#isWanted = true;
		if (!expectsContinue) return;
		// Written before its turn, it could come to stand inside of the reply.
		whenInTurn(res, () => {
			if (!res.headersSent) res.writeContinue();
		});
	}
}

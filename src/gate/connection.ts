import type { IncomingMessage } from "node:http";
import type { Socket } from "node:net";
import type { Readable } from "node:stream";
import { ActiveSet } from "../net/activeSet.ts";
import { dropPiece } from "../net/memory.ts";
import { type Address, parseAddress, type Range } from "../net/ranges.ts";
import { Counts } from "./counts.ts";
import type { Exchange } from "./exchange.ts";

/** Where a connection over the Unix socket comes from: a program of this host that may open its file. */
export const localSource = "local";

/** How long a connection may idle between requests, as its replies tell. */
export const idleMs = {
	stranger: 10_000,
	/**
	 * Longer than the pools of clients and proxies hold theirs (Go 90 s, Caddy
	 * 120 s), so that none sends a request on a connection that is just being closed.
	 */
	known: 300_000,
} as const;

/** One connection of a client. */
export interface Connection {
	/** Among those that are open. */
	index: number;
	/** What was accepted: under TLS the socket below that of the requests. */
	readonly accepted: Socket;
	/** What its requests are read from. */
	socket: Socket;
	/** The peer's address, an IPv4 address mapped into IPv6 written as IPv4; or `local`. */
	readonly address: string;
	/** As it came, for those who look at its bits; `local` over the Unix socket. */
	readonly parsedAddress: Address | typeof localSource;
	/** Whether it comes from none of these ranges, which is asked once of each set of them. */
	isForeign: boolean;
	judgedBy: readonly Range[] | undefined;
	/** The name of the key that was good last on it; `undefined` while it is a stranger's. */
	key: string | undefined;
	/** Requests that were refused while it was a stranger's. */
	refusals: number;
	/** A request has come on it. Until then Node looks after its time. */
	isUsed: boolean;
	/** Requests whose replies have not left yet: with more than one, the client pipelines. */
	unanswered: number;
	/** Sweeps since it has idled between requests, and what had come on it by then. */
	quietSweeps: number;
	bytesRead: number;
	/** Since when it has had no request, once the gate stops. */
	quietSinceMs: number | undefined;
	/** A refusal on it is held back. */
	waits: boolean;
	/** The reply that closes it has been written, or will be: whatever comes behind is not looked at. */
	closing: boolean;
	/** Node's parser is given nothing more of what it sends. */
	stopped: boolean;
	/** The request that was read last, or is being read. */
	latest: IncomingMessage | undefined;
	/** It speaks TLS, in which a byte can come as a record of its own. */
	isEncrypted: boolean;
	/** The requests on it that have not ended; more than one when the client pipelines. */
	readonly exchanges: ActiveSet<Exchange>;
}

/**
 * Connections that have not shown a good key yet, as many as one address and
 * all together may hold open. Beyond the total, a new one gets the oldest place
 * of the address that has most. Each is closed after ten seconds without a
 * request; the bounds keep a flood of silent ones from using up the file
 * descriptors.
 */
const maxStrangersPerAddress = 1024;
const maxStrangers = 8192;
/** Connections of one key, unless it may have more than half as many requests at work. */
const maxOfKey = 1024;

/** Why a connection was not taken: it is gone already, there is room for nobody, or it is one stranger too many. */
export type NotTaken = "gone" | "full" | "strangers";

/** A property of the socket: a WeakMap of every connection would cost each garbage collection. */
const held = Symbol("connection");
type HeldSocket = Socket & { [held]?: Connection };

/** The open connections, and the strangers among them. */
export class ConnectionTable {
	/** By address, the oldest first. */
	readonly #strangers = new Map<string, Set<Connection>>();
	readonly #ofKey = new Counts();
	/** Those with a key, by address. */
	readonly #known = new Counts();
	#strangerCount = 0;
	readonly #open = new ActiveSet<Connection>();
	readonly #room: () => number;

	/** @param room how many connections there may be at once, no matter whose they are */
	constructor(room: () => number) {
		this.#room = room;
	}

	/**
	 * Takes note of a new connection, or says why it must be closed.
	 *
	 * @param local whether it came over the Unix socket, where a peer has no address
	 */
	open(socket: Socket, local: boolean): Connection | NotTaken {
		const parsedAddress = local
			? localSource
			: parseAddress(socket.remoteAddress);
		const address = parsedAddress?.toString();
		// Without an address it has been reset already.
		if (parsedAddress === undefined || address === undefined) return "gone";
		const own = this.#strangers.get(address) ?? new Set();
		const mostOfOne = Math.min(maxStrangersPerAddress, this.#room() / 2);
		if (own.size >= mostOfOne) return this.isFull ? "full" : "strangers";
		if (this.isFull || this.#strangerCount >= maxStrangers) {
			const givesWay = this.#oldestOfMost(own.size);
			if (givesWay === undefined) return this.isFull ? "full" : "strangers";
			// Its place is free at once; the rest follows when it has closed.
			this.#open.delete(givesWay);
			this.#forgetStranger(givesWay);
			givesWay.socket.destroy();
		}
		const connection: Connection = {
			index: -1,
			accepted: socket,
			socket,
			address,
			parsedAddress,
			isForeign: true,
			judgedBy: undefined,
			key: undefined,
			refusals: 0,
			isUsed: false,
			unanswered: 0,
			quietSweeps: 0,
			bytesRead: 0,
			quietSinceMs: undefined,
			waits: false,
			closing: false,
			stopped: false,
			latest: undefined,
			isEncrypted: false,
			exchanges: new ActiveSet(),
		};
		this.#open.add(connection);
		this.#strangers.set(address, own.add(connection));
		this.#strangerCount += 1;
		// An error that nobody listens for ends the process.
		socket.on("error", () => {});
		socket.once("close", () => {
			this.#open.delete(connection);
			if (connection.key === undefined) this.#forgetStranger(connection);
			else {
				this.#ofKey.remove(connection.key);
				this.#known.remove(address);
			}
			for (const exchange of connection.exchanges) exchange.abandon();
		});
		return connection;
	}

	/**
	 * Has a connection's requests come from a socket that Node's parser listens to
	 * by now: the one that `open` took, or the one that speaks TLS over it.
	 */
	attach(socket: Socket, connection: Connection): void {
		connection.socket = socket;
		(socket as HeldSocket)[held] = connection;
		makeStoppable(socket, connection);
		// Node stops listening for errors once it has handed a socket over (CONNECT).
		socket.on("error", () => {});
	}

	/** The connection of a socket that `attach` has had. */
	of(socket: Socket): Connection | undefined {
		return (socket as HeldSocket)[held];
	}

	/**
	 * A good key was shown: the connection counts as the key's, and no longer as a stranger's.
	 *
	 * @param concurrent how many requests of the key may be at work at once
	 * @returns false if the key, or its address, has too many connections already; then nothing has changed
	 */
	markKnown(connection: Connection, key: string, concurrent: number): boolean {
		if (connection.key === key) return true;
		const { address } = connection;
		const half = this.#room() / 2;
		if (
			this.#ofKey.of(key) >= Math.min(Math.max(maxOfKey, 2 * concurrent), half)
		)
			return false;
		if (connection.key === undefined) {
			if (this.#known.of(address) >= half) return false;
			this.#known.add(address);
			this.#forgetStranger(connection);
		} else this.#ofKey.remove(connection.key);
		this.#ofKey.add(key);
		connection.key = key;
		return true;
	}

	/**
	 * Closes what has idled between requests for as long as it may, or up to an
	 * interval longer; so long also what does not take the end of a reply. Called at a fixed interval, so that no request needs a timer.
	 */
	sweep(intervalMs: number): void {
		for (const connection of this.#open) {
			const { socket, unanswered, exchanges } = connection;
			if (!connection.isUsed) continue;
			// A reply whose account is closed and that is not taken is looked after by nobody else.
			const isUnread = exchanges.size === 0 && socket.writableLength > 0;
			if (unanswered > 0 && !isUnread) continue;
			const { bytesRead } = socket;
			// Of a request that has begun, too: how long its head may take Node looks after.
			if (bytesRead !== connection.bytesRead) {
				connection.bytesRead = bytesRead;
				connection.quietSweeps = 0;
				continue;
			}
			connection.quietSweeps += 1;
			const { key, quietSweeps } = connection;
			const mostMs = key === undefined ? idleMs.stranger : idleMs.known;
			if (quietSweeps * intervalMs >= mostMs) socket.destroy();
		}
	}

	/**
	 * Closes what has had no request for so long since this was first called, which
	 * is done at short intervals while the gate stops.
	 *
	 * @returns how many are still held
	 */
	part(holdMs: number, nowMs: number): number {
		let held = 0;
		for (const connection of this.#open) {
			if (connection.exchanges.size > 0 || connection.unanswered > 0) {
				connection.quietSinceMs = undefined;
				// A refusal that is held back keeps nobody waiting.
				if (!connection.waits) held += 1;
				continue;
			}
			connection.quietSinceMs ??= nowMs;
			if (nowMs - connection.quietSinceMs < holdMs) held += 1;
			else cutOff(connection.socket);
		}
		return held;
	}

	get openCount(): number {
		return this.#open.size;
	}

	/** Whether there is room for nobody, with a key or without. */
	get isFull(): boolean {
		return this.#open.size >= this.#room();
	}

	/**
	 * What gives way to a stranger of an address that has so many: the oldest of
	 * an address that has no fewer even then. Nothing that a stranger asks for reaches Ollama, so
	 * that no work is lost.
	 */
	#oldestOfMost(ofAddress: number): Connection | undefined {
		let most: ReadonlySet<Connection> | undefined;
		for (const strangers of this.#strangers.values())
			if (strangers.size > (most?.size ?? ofAddress + 1)) most = strangers;
		return most?.values().next().value;
	}

	#forgetStranger(connection: Connection): void {
		const strangers = this.#strangers.get(connection.address);
		if (strangers?.delete(connection) !== true) return;
		this.#strangerCount -= 1;
		if (strangers.size === 0) this.#strangers.delete(connection.address);
	}
}

/** What is used of Node's parser (lib/_http_common.js, lib/_http_server.js). */
interface Parser {
	onIncoming?: ((request: unknown, keepAlive: unknown) => number) | null;
	readonly constructor: { readonly kOnBody?: number };
	/** Callbacks, by number; a body's piece is dropped unread where there is none. */
	[callback: number]: unknown;
}
type ParsedSocket = Socket & { parser?: Parser | null };
/** Node sets it when it makes a socket, for all of a server's alike. */
type BoundedReadable = Readable & {
	_readableState?: { highWaterMark: number };
};
type OnBody = (this: Parser, piece: Buffer) => void;

/** The one function that all of Node's parsers call for a piece of a body. */
let passPiece: OnBody | undefined;

/**
 * Answering 2 to a head is how Node's own code makes the parser stop behind it
 * (lib/_http_server.js:parserOnIncoming): of the 64 KiB that it was given it
 * makes two objects of some 3 KB out of each 18 bytes, and one out of each piece
 * of a body, however short, although nobody wants them any more.
 */
function makeStoppable(socket: Socket, connection: Connection): void {
	const { parser } = socket as ParsedSocket;
	const read = parser?.onIncoming;
	if (!parser || !read) return;
	parser.onIncoming = (request, keepAlive) => {
		if (connection.stopped) return 2;
		const answer = read(request, keepAlive);
		return connection.stopped ? 2 : answer;
	};
}

/**
 * Has every piece of the body that a socket's parser is about to read counted as
 * it is parsed, which may be long before anybody reads the request.
 *
 * @param take is told a piece's bytes, and returns whether it may be handed on
 * @returns what ends it; it must be called before the parser reads the next request
 */
export function watchPieces(
	socket: Socket,
	take: (sizeBytes: number) => boolean,
): () => void {
	const { parser } = socket as ParsedSocket;
	const at = parser?.constructor.kOnBody;
	if (!parser || at === undefined) return () => {};
	passPiece ??= parser[at] as OnBody;
	const pass = passPiece;
	const watching: OnBody = function (piece) {
		if (take(piece.length)) pass.call(this, piece);
	};
	parser[at] = watching;
	return () => {
		if (parser[at] === watching) parser[at] = pass;
	};
}

/**
 * Gives Node's parser nothing more of what a connection sends. What comes from
 * then on goes to `take` and is kept nowhere.
 *
 * Pausing the socket would not do: Node reads on until it holds 64 KiB, and in
 * packets of one byte that is 65,536 pieces of half a kilobyte each.
 *
 * @param take returns whether the system may be asked for more; if not, `readOn` does that
 */
export function stopParsing(
	socket: Socket,
	take: (bytes: Buffer) => boolean,
): void {
	const connection = (socket as HeldSocket)[held];
	if (connection !== undefined) connection.stopped = true;
	const { parser } = socket as ParsedSocket;
	const at = parser?.constructor.kOnBody;
	// It may be in the middle of what it was given, and goes on to its end: without
	// a callback a piece costs it a tenth. Parsers are used again, so it comes back.
	if (parser && at !== undefined) {
		const pass = passPiece ?? parser[at];
		parser[at] = undefined;
		setImmediate(() => {
			parser[at] = pass;
		});
	}
	socket.removeAllListeners("data");
	// Where the request was held back, only Node's listener for this makes the system read again.
	socket.emit("resume");
	const push = socket.push.bind(socket);
	socket.push = (piece: Buffer | null) => {
		if (piece === null) return push(null);
		const wantsMore = take(piece);
		dropPiece(piece);
		return wantsMore;
	};
	// Node takes the socket away from the parser once its data is listened for.
	socket.on("data", () => {});
	socket.resume();
}

/** Has the system asked for more, after `stopParsing`. */
export function readOn(socket: Socket): void {
	if (!socket.destroyed) socket._read(0);
}

/**
 * Has a paused socket, or the body of a request, take one piece more and not the
 * 64 KiB that Node would hold; the system keeps the rest, and the client has to wait.
 */
export function holdLittle(stream: Readable): void {
	const state = (stream as BoundedReadable)._readableState;
	if (state !== undefined) state.highWaterMark = 1;
}

/** Closes a connection at once and reads no more of what it has sent. */
export function cutOff(socket: Socket): void {
	const connection = (socket as HeldSocket)[held];
	if (connection !== undefined) connection.stopped = true;
	socket.destroy();
}

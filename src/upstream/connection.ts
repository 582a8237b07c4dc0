import { connect, type Socket } from "node:net";
import type { Settings } from "../config/load.ts";
import { codeOf } from "../net/errorCode.ts";
import { dropPiece } from "../net/memory.ts";
import { parseAddress } from "../net/ranges.ts";
import { tailnetLookup } from "../net/tailnetLookup.ts";
import type { UpstreamCall, UpstreamFault, UpstreamSink } from "./call.ts";
import { BrokenReply, ReplyReader } from "./responseParser.ts";

/** Bytes read at once: what the system has, in the usual case a token. */
const readBytes = 64 * 1024;

/**
 * Every read's bytes, of whatever connection: they are decoded and handed on
 * before the next read. Without it Node would set 64 KiB aside for each token.
 */
const readBuffer = Buffer.allocUnsafeSlow(readBytes);

/** A name, rather than an address, may lead into the tailnet alone. */
const lookup = tailnetLookup();

/** What `net.connect` is told of an Ollama. */
export function placeOf(target: Settings["upstream"]["target"]) {
	if (target.kind === "unix") return { path: target.socketPath };
	const { host, port, bridge } = target;
	if (bridge !== undefined) return { path: bridge };
	return parseAddress(host) === undefined
		? { host, port, noDelay: true, lookup }
		: { host, port, noDelay: true };
}

/** One request on its connection. */
export class UpstreamRequest {
	readonly reader: ReplyReader;
	readonly sink: UpstreamSink;
	/** The body has been written whole. */
	bodyEnded: boolean;
	readonly #chunked: boolean;
	/** Until its end. */
	connection: Connection | undefined;

	constructor({ method, body }: UpstreamCall, sink: UpstreamSink) {
		this.sink = sink;
		this.reader = new ReplyReader(method === "HEAD", sink);
		this.bodyEnded = body === undefined || Buffer.isBuffer(body);
		this.#chunked = body?.length === "chunked";
	}

	/**
	 * Writes a piece of the body, which is given up with that: its memory may be gone
	 * once it has been written.
	 *
	 * @returns whether more may come now; else `ready` says when
	 */
	write(piece: Buffer): boolean {
		if (this.connection === undefined) return true;
		const { socket } = this.connection;
		const written = () => dropPiece(piece);
		if (!this.#chunked) return socket.write(piece, written);
		// A chunk without data would be the body's end.
		if (piece.length === 0) return true;
		socket.cork();
		socket.write(`${piece.length.toString(16)}\r\n`, "latin1");
		socket.write(piece, written);
		const room = socket.write("\r\n", "latin1");
		socket.uncork();
		return room;
	}

	/** The body is whole. */
	endBody(): void {
		this.bodyEnded = true;
		if (this.#chunked) this.connection?.socket.write("0\r\n\r\n", "latin1");
	}

	/** Reads on, after the sink wanted no more. */
	resume(): void {
		this.connection?.socket.resume();
	}

	/** Ends it at once, so that Ollama stops too. The sink hears no more of it. */
	abort(): void {
		const { connection } = this;
		this.connection = undefined;
		this.reader.stop();
		connection?.destroy();
	}
}

/** A request as it is written. */
export interface Message {
	readonly call: UpstreamCall;
	readonly head: string;
}

/** Hears what becomes of a connection. */
interface Owner {
	free(): void;
	closed(): void;
	/** The connection has ended before a byte of the request was written on it. */
	unsent(request: UpstreamRequest, message: Message): void;
}

/** A connection and the request on it, if any. */
export class Connection {
	index = -1;
	readonly socket: Socket;
	idleSinceMs = 0;
	readonly #owner: Owner;
	#request: UpstreamRequest | undefined;
	/** The request has not been written. */
	#unsent: Message | undefined;
	#connected = false;

	constructor(
		place: ReturnType<typeof placeOf>,
		connectTimeoutMs: number,
		owner: Owner,
	) {
		this.#owner = owner;
		this.socket = connect({
			...place,
			onread: {
				buffer: readBuffer,
				callback: (length) => this.#read(length),
			},
		});
		const { socket } = this;
		const timer = setTimeout(
			() => this.#fail({ kind: "unreachable", detail: "ETIMEDOUT" }),
			connectTimeoutMs,
		);
		socket.once("connect", () => {
			clearTimeout(timer);
			this.#connected = true;
			this.#letWrite();
		});
		socket.on("drain", () => this.#letWrite());
		socket.on("error", (error) =>
			this.#fail({
				kind: this.#connected ? "died" : "unreachable",
				detail: codeOf(error),
			}),
		);
		socket.once("end", () => this.#closedByPeer());
		socket.once("close", () => {
			clearTimeout(timer);
			this.#closedByPeer();
		});
	}

	/** Sends the first request on it. */
	begin(request: UpstreamRequest, message: Message): void {
		request.connection = this;
		this.#request = request;
		this.#write(message);
	}

	/**
	 * Sends another request, once all that has come by now has been read: between
	 * two turns of the event loop Node reads every socket that has something. What
	 * is there before the request has been written is not an answer to it.
	 */
	beginAgain(request: UpstreamRequest, message: Message): void {
		request.connection = this;
		this.#request = request;
		this.#unsent = message;
		setImmediate(() => setImmediate(() => this.#writeUnsent(message)));
	}

	#writeUnsent(message: Message): void {
		if (this.#unsent !== message) return;
		this.#unsent = undefined;
		this.#write(message);
		this.#letWrite();
	}

	#write({ call: { body, written }, head }: Message): void {
		const { socket } = this;
		if (!Buffer.isBuffer(body)) socket.write(head, "latin1");
		// One string is one write. Latin-1 keeps every byte.
		else if (body.length <= 4096)
			socket.write(head + body.toString("latin1"), "latin1");
		else {
			socket.cork();
			socket.write(head, "latin1");
			socket.write(body, written);
			socket.uncork();
		}
	}

	destroy(): void {
		this.#request = undefined;
		this.#unsent = undefined;
		this.#owner.closed();
		this.socket.destroy();
	}

	#letWrite(): void {
		if (this.#unsent === undefined && this.#request?.bodyEnded === false)
			this.#request.sink.ready();
	}

	/** Returns whether more is wanted now (net.connect, `onread.callback`). */
	#read(length: number): boolean {
		const request = this.#request;
		if (request === undefined || this.#unsent !== undefined) {
			// Whatever it is, it answers nothing.
			this.#fail({ kind: "garbage", detail: "bytes that nobody asked for" });
			return false;
		}
		let wantsMore: boolean;
		try {
			wantsMore = request.reader.read(readBuffer, length);
		} catch (error) {
			if (!(error instanceof BrokenReply)) throw error;
			this.#fail({ kind: "garbage", detail: error.message });
			return false;
		}
		// What it read has had it aborted.
		if (request.connection !== this) return false;
		if (!request.reader.ended) return wantsMore;
		this.#finish(request);
		return true;
	}

	#finish(request: UpstreamRequest): void {
		request.connection = undefined;
		if (this.#request !== request) return;
		this.#request = undefined;
		// What is left of a body would be taken for the next request, or keep it waiting.
		if (
			!request.reader.reusable ||
			!request.bodyEnded ||
			this.socket.writableLength > 0
		)
			this.destroy();
		else {
			this.idleSinceMs = performance.now();
			this.#owner.free();
		}
	}

	#closedByPeer(): void {
		const request = this.#request;
		if (this.#unsent === undefined && request?.reader.close() === true)
			this.#finish(request);
		else this.#fail({ kind: "died", detail: "ECONNRESET" });
	}

	#fail(fault: UpstreamFault): void {
		const request = this.#request;
		const unsent = this.#unsent;
		this.destroy();
		if (request?.connection === undefined) return;
		request.connection = undefined;
		if (unsent === undefined) request.sink.failed(fault);
		else this.#owner.unsent(request, unsent);
	}
}

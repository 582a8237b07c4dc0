import { connect, type Socket } from "node:net";
import type { Settings } from "../config/load.ts";
import { ActiveSet } from "../net/activeSet.ts";
import { codeOf } from "../net/errorCode.ts";
import { formatHostPort, parseAddress } from "../net/ranges.ts";
import { tailnetLookup } from "../net/tailnetLookup.ts";
import { BrokenReply, ReplyReader, type ReplySink } from "./responseParser.ts";

/** Ollama never closes an idle connection; one that nobody needs is closed after so long. */
const maxIdleMs = 60_000;
/** Bytes read at once: what the system has, in the usual case a token. */
const readBytes = 64 * 1024;

/** Why a request came to nothing. */
export interface UpstreamFault {
	readonly kind: "unreachable" | "garbage" | "died";
	/** The system's code, or what is wrong with the reply. */
	readonly detail: string;
}

/** Something in a request would be read as another line of it. */
export class OddRequest extends Error {
	readonly code = "ODD_REQUEST";
}

/** Takes what becomes of a request. */
export interface UpstreamSink extends ReplySink {
	/** A body that is written later may be written now, or on after `write` returned false. */
	ready(): void;
	/** Instead of `end`. Nothing follows. */
	failed(fault: UpstreamFault): void;
}

/** What is asked of Ollama. */
export interface UpstreamCall {
	readonly method: string;
	readonly path: string;
	/** Names and values in turn; `Host` and the body's framing are added. */
	readonly headers: readonly string[];
	/** The body; `undefined` if there is none, a length or "chunked" if it is written later. */
	readonly body: Buffer | undefined | { readonly length: string | "chunked" };
	/** Called when the memory of a large body given whole is in no use any more, also after `abort`. */
	readonly written?: () => void;
}

/**
 * Every read's bytes, of whatever connection: they are decoded and handed on
 * before the next read. Without it Node would set 64 KiB aside for each token.
 */
const readBuffer = Buffer.allocUnsafeSlow(readBytes);

/** Neither a line's end nor any other control character may come out of a request's headers. */
const plainValue = /^[\t\x20-\x7e\x80-\xff]*$/;
const plainPath = /^\/[\x21-\x7e]*$/;

/** What a request must name as its `Host`: bound to loopback, Ollama answers 403 to any other. */
export function hostHeaderOf(target: Settings["upstream"]["target"]): string {
	return target.kind === "tcp"
		? formatHostPort(target.host, target.port)
		: "127.0.0.1:11434";
}

/** A name, rather than an address, may lead into the tailnet alone. */
const lookup = tailnetLookup();

function placeOf(target: Settings["upstream"]["target"]) {
	if (target.kind === "unix") return { path: target.socketPath };
	const { host, port } = target;
	return parseAddress(host) === undefined
		? { host, port, noDelay: true, lookup }
		: { host, port, noDelay: true };
}

/** Connections to one Ollama, each with one request at a time. */
export class Upstream {
	/** For messages: `127.0.0.1:11434`, or the socket's path. */
	readonly name: string;
	/** Requests that may be with Ollama at once. */
	readonly maxConnections: number;
	readonly #place: ReturnType<typeof placeOf>;
	/** Begins each request's headers. */
	readonly #firstLines: string;
	readonly #connectTimeoutMs: number;
	readonly #all = new ActiveSet<Connection>();
	/** The one that was used last is last. */
	readonly #idle: Connection[] = [];
	#retired = false;

	/** @param ownHeaders of every request: names and values in turn; nothing of a client's is among them */
	constructor(
		{ target, connectTimeoutMs, maxConnections }: Settings["upstream"],
		ownHeaders: readonly string[] = [],
	) {
		this.#place = placeOf(target);
		this.#connectTimeoutMs = connectTimeoutMs;
		this.maxConnections = maxConnections;
		const hostHeader = hostHeaderOf(target);
		this.#firstLines = linesOf(["host", hostHeader, ...ownHeaders]);
		this.name = target.kind === "tcp" ? hostHeader : target.socketPath;
	}

	/** Requests that are with Ollama. */
	get active(): number {
		return this.#all.size - this.#idle.length;
	}

	/** Sends a request; the sink hears nothing before this has returned. @throws OddRequest */
	send(call: UpstreamCall, sink: UpstreamSink): UpstreamRequest {
		const message = { call, head: headOf(call, this.#firstLines) };
		const request = new UpstreamRequest(call, sink);
		const idle = this.#idle.pop();
		if (idle === undefined) this.#open().begin(request, message);
		else idle.beginAgain(request, message);
		return request;
	}

	/** Closes what nobody has needed for a minute. */
	sweep(nowMs: number): void {
		while (
			this.#idle[0] !== undefined &&
			nowMs - this.#idle[0].idleSinceMs > maxIdleMs
		)
			this.#idle[0].destroy();
	}

	/** Takes no connection back any more: each ends with its request. */
	retire(): void {
		this.#retired = true;
		for (const connection of [...this.#idle]) connection.destroy();
	}

	/** Ends all connections, whatever runs on them. */
	destroy(): void {
		this.#retired = true;
		for (const connection of this.#all) connection.destroy();
	}

	#open(): Connection {
		const connection = new Connection(this.#place, this.#connectTimeoutMs, {
			free: () => {
				if (this.#retired) connection.destroy();
				else this.#idle.push(connection);
			},
			closed: () => {
				this.#all.delete(connection);
				const at = this.#idle.indexOf(connection);
				if (at !== -1) this.#idle.splice(at, 1);
			},
			unsent: (request, message) => this.#open().begin(request, message),
		});
		this.#all.add(connection);
		return connection;
	}
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
	 * Writes a piece of the body.
	 *
	 * @returns whether more may come now; else `ready` says when
	 */
	write(piece: Buffer): boolean {
		if (this.connection === undefined) return true;
		const { socket } = this.connection;
		if (!this.#chunked) return socket.write(piece);
		// A chunk without data would be the body's end.
		if (piece.length === 0) return true;
		socket.cork();
		socket.write(`${piece.length.toString(16)}\r\n`, "latin1");
		socket.write(piece);
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
interface Message {
	readonly call: UpstreamCall;
	readonly head: string;
}

interface Owner {
	free(): void;
	closed(): void;
	/** The connection has ended before a byte of the request was written on it. */
	unsent(request: UpstreamRequest, message: Message): void;
}

/** A connection and the request on it, if any. */
class Connection {
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

/** @throws OddRequest */
function headOf(
	{ method, path, headers, body }: UpstreamCall,
	firstLines: string,
): string {
	if (!plainPath.test(path))
		throw new OddRequest("the path has odd characters");
	let head = `${method} ${path} HTTP/1.1\r\n${firstLines}${linesOf(headers)}`;
	if (body?.length === "chunked") head += "transfer-encoding: chunked\r\n";
	else if (body !== undefined) head += `content-length: ${body.length}\r\n`;
	else if (method === "POST") head += "content-length: 0\r\n";
	return `${head}\r\n`;
}

/** @throws OddRequest */
function linesOf(headers: readonly string[]): string {
	let lines = "";
	for (let at = 0; at < headers.length; at += 2) {
		const value = headers[at + 1] ?? "";
		if (!plainValue.test(value))
			throw new OddRequest(`the header ${headers[at]} has odd characters`);
		lines += `${headers[at]}: ${value}\r\n`;
	}
	return lines;
}

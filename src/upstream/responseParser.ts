/** The head of a reply (RFC 9112, 4 and 5). */
export interface ReplyHead {
	readonly status: number;
	/** Lower-case names and values in turn, in the order in which they came. */
	readonly headers: readonly string[];
}

/** Takes what a reader finds. */
export interface ReplySink {
	/** Once, for the reply that is not an interim one. */
	head(head: ReplyHead): void;
	/**
	 * Bytes of the body, without their framing: at most once for what was read at
	 * once. They are the caller's only until this returns.
	 *
	 * @returns whether more is wanted now
	 */
	data(buffer: Buffer, start: number, end: number): boolean;
	/** Once, when the reply is whole. */
	end(): void;
}

/** What came is not a reply in HTTP/1.1, or none that everybody reads alike. */
export class BrokenReply extends Error {
	readonly code = "BROKEN_REPLY";
}

const maxHeadBytes = 16 * 1024;
/** 102 and 103 and their like that may come before a reply. */
const maxInterim = 32;
/** A chunk's size in hexadecimal digits: less than 2^48. */
const maxSizeDigits = 12;

const headEnd = Buffer.from("\r\n\r\n");
const statusLine = /^HTTP\/1\.([01]) ([1-9]\d\d)(?: [\t\x20-\x7e\x80-\xff]*)?$/;
const fieldName = /^[!#$%&'*+\-.^_`|~0-9a-z]+$/;
const fieldValue = /^[\t\x20-\x7e\x80-\xff]*$/;

/** Where the reader is. */
const phase = {
	head: 0,
	/** `left` bytes of a body with a length. */
	sized: 1,
	/** A body that ends with the connection. */
	unsized: 2,
	chunkSize: 3,
	chunkSizeLf: 4,
	/** `left` bytes of a chunk. */
	chunkData: 5,
	chunkDataCr: 6,
	chunkDataLf: 7,
	/** Behind the last chunk, where trailers could stand. */
	lastCr: 8,
	lastLf: 9,
	ended: 10,
} as const;
type Phase = (typeof phase)[keyof typeof phase];

const cr = 13;
const lf = 10;

/**
 * Reads one reply of Ollama's. Strict: what two readers could frame in two ways
 * (a length beside chunks, two lengths, bare line feeds, chunk extensions) is
 * broken. Go's server sends none of it.
 *
 * It decodes in place and hands on what one read brought as one piece, so that a
 * token costs no buffer of its own.
 */
export class ReplyReader {
	readonly #sink: ReplySink;
	readonly #answersHead: boolean;
	#phase: Phase = phase.head;
	/** A head that has not come whole. */
	#headText = "";
	#interim = 0;
	#left = 0;
	#sizeDigits = 0;
	#reusable = true;
	#isStopped = false;

	/** @param answersHead whether the request was HEAD, whose reply has no body whatever its headers say */
	constructor(answersHead: boolean, sink: ReplySink) {
		this.#answersHead = answersHead;
		this.#sink = sink;
	}

	/** Whether the reply is whole. */
	get ended(): boolean {
		return this.#phase === phase.ended;
	}

	/** Whether the connection is good for another request once this reply is whole. */
	get reusable(): boolean {
		return this.#reusable;
	}

	/** Nobody wants the rest, also of what is being read just now: the sink hears no more. */
	stop(): void {
		this.#isStopped = true;
	}

	/**
	 * Reads the first `length` bytes of a buffer, and writes to it. Not to be called
	 * once the reply is whole.
	 *
	 * @returns whether more is wanted now
	 * @throws BrokenReply, once what came before the fault has been handed on
	 */
	read(buffer: Buffer, length: number): boolean {
		let at = 0;
		while (this.#phase === phase.head && at < length)
			at = this.#readHead(buffer, at, length);
		if (this.#phase === phase.head || this.#isStopped) return true;
		const start = at;
		let put = at;
		let fault: string | undefined;
		while (at < length && fault === undefined) {
			const now: Phase = this.#phase;
			if (
				now === phase.chunkData ||
				now === phase.sized ||
				now === phase.unsized
			) {
				const count =
					now === phase.unsized
						? length - at
						: Math.min(this.#left, length - at);
				if (put !== at) buffer.copyWithin(put, at, at + count);
				put += count;
				at += count;
				if (now === phase.unsized) break;
				this.#left -= count;
				if (this.#left === 0)
					this.#phase = now === phase.sized ? phase.ended : phase.chunkDataCr;
			} else if (now === phase.ended) {
				// Nobody has asked for what follows.
				this.#reusable = false;
				break;
			} else fault = this.#readFraming(buffer[at++] ?? 0);
		}
		const wantsMore = put === start || this.#sink.data(buffer, start, put);
		if (this.#isStopped) return true;
		if (fault !== undefined) throw new BrokenReply(fault);
		if (this.ended) this.#sink.end();
		return wantsMore;
	}

	/**
	 * The connection has ended.
	 *
	 * @returns whether that is a reply's regular end
	 */
	close(): boolean {
		this.#reusable = false;
		if (this.#phase !== phase.unsized) return this.ended;
		this.#phase = phase.ended;
		this.#sink.end();
		return true;
	}

	/** One byte of a chunk's framing (RFC 9112, 7.1). Returns what is wrong with it. */
	#readFraming(byte: number): string | undefined {
		switch (this.#phase) {
			case phase.chunkSize: {
				const digit = hexDigit(byte);
				if (digit !== -1 && ++this.#sizeDigits <= maxSizeDigits) {
					this.#left = this.#left * 16 + digit;
					return undefined;
				}
				if (byte !== cr || this.#sizeDigits === 0)
					return "a chunk's size is not a number in hexadecimal digits alone";
				this.#phase = phase.chunkSizeLf;
				return undefined;
			}
			case phase.chunkSizeLf:
				if (byte !== lf) return "a chunk's size does not end with CR LF";
				this.#phase = this.#left > 0 ? phase.chunkData : phase.lastCr;
				return undefined;
			case phase.chunkDataCr:
				if (byte !== cr) return "a chunk is longer than it says";
				this.#phase = phase.chunkDataLf;
				return undefined;
			case phase.chunkDataLf:
				if (byte !== lf) return "a chunk does not end with CR LF";
				this.#sizeDigits = 0;
				this.#phase = phase.chunkSize;
				return undefined;
			case phase.lastCr:
				if (byte !== cr) return "trailers follow the last chunk";
				this.#phase = phase.lastLf;
				return undefined;
			default:
				if (byte !== lf) return "the last chunk does not end with CR LF";
				this.#phase = phase.ended;
				return undefined;
		}
	}

	/** Returns the place behind the head, or behind what there is of it. */
	#readHead(buffer: Buffer, from: number, length: number): number {
		const before = this.#headText.length;
		if (before === 0) {
			const end = buffer.indexOf(headEnd, from);
			// What was read before may still stand behind `length`.
			if (end !== -1 && end + headEnd.length <= length) {
				this.#takeHead(buffer.toString("latin1", from, end));
				return end + headEnd.length;
			}
		}
		this.#headText += buffer.toString("latin1", from, length);
		const end = this.#headText.indexOf("\r\n\r\n", Math.max(0, before - 3));
		if (end === -1) {
			// Three bytes may be the beginning of its end.
			checkHeadLength(this.#headText.slice(3));
			return length;
		}
		const text = this.#headText.slice(0, end);
		this.#headText = "";
		this.#takeHead(text);
		return from + end + headEnd.length - before;
	}

	#takeHead(text: string): void {
		checkHeadLength(text);
		const [first = "", ...lines] = text.split("\r\n");
		const [, minor, digits] = statusLine.exec(first) ?? [];
		if (digits === undefined)
			throw new BrokenReply("the first line is not that of an HTTP/1.1 reply");
		const status = Number(digits);
		let length: string | undefined;
		let coding: string | undefined;
		let closes = minor === "0";
		const headers: string[] = [];
		for (const line of lines) {
			const colonAt = line.indexOf(":");
			const name = line.slice(0, Math.max(0, colonAt)).toLowerCase();
			const value = trimBlanks(line, colonAt + 1);
			if (!fieldName.test(name) || !fieldValue.test(value))
				throw new BrokenReply("a header is not well-formed");
			headers.push(name, value);
			switch (name) {
				case "content-length":
					if (length !== undefined)
						throw new BrokenReply("the length is named twice");
					length = value;
					break;
				case "transfer-encoding":
					if (coding !== undefined)
						throw new BrokenReply("the transfer coding is named twice");
					coding = value;
					break;
				case "connection":
					closes ||= /(?:^|[\s,])close(?:[\s,]|$)/i.test(value);
					break;
			}
		}
		if (length !== undefined && !/^\d{1,15}$/.test(length))
			throw new BrokenReply("the length is not a number");
		if (
			coding !== undefined &&
			(coding.toLowerCase() !== "chunked" ||
				length !== undefined ||
				minor === "0")
		)
			throw new BrokenReply(
				"the body is framed in two ways, or in one that is not known",
			);
		if (status === 101)
			throw new BrokenReply("nobody asked to switch protocols");
		if (status < 200) {
			// RFC 9110, 15.2: whether it was asked for or not.
			if (++this.#interim > maxInterim)
				throw new BrokenReply("there are too many interim replies");
			return;
		}
		this.#left = Number(length ?? 0);
		if (closes) this.#reusable = false;
		if (this.#answersHead || status === 204 || status === 304)
			this.#phase = phase.ended;
		else if (coding !== undefined) this.#phase = phase.chunkSize;
		else if (length === undefined) this.#phase = phase.unsized;
		else this.#phase = this.#left === 0 ? phase.ended : phase.sized;
		this.#sink.head({ status, headers });
	}
}

function checkHeadLength(text: string): void {
	if (text.length > maxHeadBytes)
		throw new BrokenReply(`the head has more than ${maxHeadBytes} bytes`);
}

function hexDigit(byte: number): number {
	if (byte >= 48 && byte <= 57) return byte - 48;
	const letter = byte | 0x20;
	return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

/** Without the blanks around it (RFC 9112, 5). */
function trimBlanks(line: string, from: number): string {
	let start = from;
	let end = line.length;
	while (start < end && isBlank(line.charCodeAt(start))) start += 1;
	while (end > start && isBlank(line.charCodeAt(end - 1))) end -= 1;
	return line.slice(start, end);
}

function isBlank(code: number): boolean {
	return code === 32 || code === 9;
}

/**
 * Where requests end for Go's net/http server, which Ollama is: the second
 * opinion that the gate is compared with. Written the plain way from the
 * behaviour of readRequest, textproto's ReadMIMEHeader, readTransfer and the
 * chunked reader. Text is Latin-1, a character a byte.
 *
 * It departs from Go where Node's parser is more patient and nothing hangs on
 * it: empty lines in front of any request are skipped (RFC 9112, 2.2), spaces
 * around the target are one (RFC 9112, 3), a chunk's size may have any number
 * of zeros in front, and lines have no greatest length.
 */
export interface GoRequest {
	readonly method: string;
	readonly target: string;
	/** `1.1` */
	readonly version: string;
	/** Names in lower case; every value, in order. */
	readonly headers: ReadonlyMap<string, readonly string[]>;
	readonly body: string;
}

/** The whole requests, and what came of the bytes behind the last of them. */
export interface GoReading {
	readonly requests: readonly GoRequest[];
	/** `closed`: the last request ends the connection; what is behind it is not read. */
	readonly end: "clean" | "closed" | "incomplete" | "refused";
	/** Why it was refused. */
	readonly why?: string;
	/** The request that was refused or cut off within its body, with the body so far. */
	readonly partial?: GoRequest;
}

class Refused extends Error {}
class Incomplete extends Error {}

const token = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+$/;
// biome-ignore lint/suspicious/noControlCharactersInRegex: these are what is looked for
const controlByte = /[\x00-\x08\x0a-\x1f\x7f]/;

/** Reads bytes as a connection's from its start on. */
export function readRequestsLikeGo(text: string): GoReading {
	const requests: GoRequest[] = [];
	const reader = new Reader(text);
	for (;;) {
		reader.skipEmptyLines();
		if (reader.atEnd) return { requests, end: "clean" };
		let partial: GoRequest | undefined;
		try {
			const head = readHead(reader);
			partial = head;
			const body = readBody(reader, head, (soFar) => {
				partial = { ...head, body: soFar };
			});
			requests.push({ ...head, body });
			if (closesBehind(head)) return { requests, end: "closed" };
		} catch (error) {
			const rest = partial === undefined ? {} : { partial };
			if (error instanceof Incomplete)
				return { requests, end: "incomplete", ...rest };
			if (error instanceof Refused)
				return { requests, end: "refused", why: error.message, ...rest };
			throw error;
		}
	}
}

class Reader {
	readonly #text: string;
	#at = 0;

	constructor(text: string) {
		this.#text = text;
	}

	get atEnd(): boolean {
		return this.#at >= this.#text.length;
	}

	skipEmptyLines(): void {
		while (this.peek(1) === "\r" || this.peek(1) === "\n") this.#at += 1;
	}

	peek(count: number): string {
		return this.#text.slice(this.#at, this.#at + count);
	}

	take(count: number): string {
		const found = this.peek(count);
		this.#at += found.length;
		return found;
	}

	/** A line with its end. */
	line(): string {
		const end = this.#text.indexOf("\n", this.#at);
		if (end === -1) throw new Incomplete();
		return this.take(end + 1 - this.#at);
	}

	/** bufio.Reader.ReadLine: LF ends a line, and a CR in front of it is its part. */
	plainLine(): string {
		return this.line().replace(/\r?\n$/, "");
	}
}

function readHead(reader: Reader): GoRequest {
	const line = reader.plainLine();
	const [, method = "", target = "", version = ""] =
		/^([^ ]*) +([^ ]*) +HTTP\/(\d\.\d)$/.exec(line) ?? [];
	if (!token.test(method)) throw new Refused("malformed request line");
	if (!version.startsWith("1.")) throw new Refused("unsupported version");
	if (controlByte.test(target) || target.includes("\t"))
		throw new Refused("invalid control character in the target");
	if (!target.startsWith("/") && method !== "CONNECT" && target !== "*")
		if (!/^[A-Za-z][A-Za-z0-9+.-]*:/.test(target))
			throw new Refused("invalid target");
	const headers = readHeaders(reader);
	const hosts = headers.get("host") ?? [];
	if (hosts.length > 1 || (hosts.length === 0 && version !== "1.0"))
		throw new Refused("not exactly one Host header");
	return { method, target, version, headers, body: "" };
}

/** textproto.Reader.ReadMIMEHeader, and the names and values that the server refuses after it. */
function readHeaders(reader: Reader): Map<string, string[]> {
	const headers = new Map<string, string[]>();
	if (/^[ \t]/.test(reader.peek(1)))
		throw new Refused("the first header line begins with a space");
	for (;;) {
		let line = trim(reader.plainLine());
		if (line === "") return headers;
		if (!line.includes(":")) throw new Refused("a header without a colon");
		while (/^[ \t]/.test(reader.peek(1)))
			line += ` ${trim(reader.plainLine())}`;
		// Whether another line continues this one is known once its first byte is there.
		if (reader.atEnd) throw new Incomplete();
		const colonAt = line.indexOf(":");
		const name = line.slice(0, colonAt);
		const value = line.slice(colonAt + 1).replace(/^[ \t]+/, "");
		if (!token.test(name)) throw new Refused("an invalid header name");
		if (controlByte.test(value)) throw new Refused("an invalid header value");
		const key = name.toLowerCase();
		headers.set(key, [...(headers.get(key) ?? []), value]);
	}
}

function trim(line: string): string {
	return line.replace(/^[ \t]+|[ \t]+$/g, "");
}

/** readTransfer: which framing counts, and the body by it. */
function readBody(
	reader: Reader,
	{ headers, version }: GoRequest,
	soFar: (body: string) => void,
): string {
	const codings = headers.get("transfer-encoding") ?? [];
	// HTTP/1.0 has no Transfer-Encoding; Go does not look at it there.
	if (codings.length > 0 && version !== "1.0") {
		if (codings.length > 1) throw new Refused("too many transfer encodings");
		if (codings[0]?.toLowerCase() !== "chunked")
			throw new Refused("unsupported transfer encoding");
		return readChunks(reader, soFar);
	}
	const lengths = headers.get("content-length") ?? [];
	if (new Set(lengths.map(trim)).size > 1)
		throw new Refused("different lengths");
	const [length] = lengths;
	if (length === undefined) return "";
	// An empty one is an error since Go 1.21.
	if (!/^\d+$/.test(trim(length)) || BigInt(trim(length)) >= 2n ** 63n)
		throw new Refused("bad Content-Length");
	const body = reader.take(Number(length));
	soFar(body);
	if (body.length < Number(length)) throw new Incomplete();
	return body;
}

/** The chunked reader, with the line ends that it insists on since Go 1.23.8. */
function readChunks(reader: Reader, soFar: (body: string) => void): string {
	let body = "";
	for (;;) {
		const line = reader.line();
		if (line.indexOf("\r") !== line.length - 2)
			throw new Refused("a chunk's line does not end in CR LF");
		const size = trim(line.slice(0, -2).split(";", 1)[0] ?? "");
		if (!/^0*[0-9A-Fa-f]{1,16}$/.test(size))
			throw new Refused("an invalid chunk size");
		const sizeBytes = Number.parseInt(size, 16);
		if (sizeBytes === 0) break;
		body += reader.peek(sizeBytes);
		soFar(body);
		if (reader.take(sizeBytes).length < sizeBytes) throw new Incomplete();
		const end = reader.take(2);
		if (!"\r\n".startsWith(end)) throw new Refused("no CR LF behind a chunk");
		if (end.length < 2) throw new Incomplete();
	}
	if (reader.peek(2) === "\r\n") reader.take(2);
	else readTrailer(reader);
	return body;
}

function readTrailer(reader: Reader): void {
	for (;;) {
		const line = reader.line();
		if (line === "\r\n") return;
		if (!/^[^:\r\n]+:[^\r\n]*\r\n$/.test(line))
			throw new Refused("a malformed trailer");
	}
}

function closesBehind({ headers, version }: GoRequest): boolean {
	const options = (headers.get("connection") ?? [])
		.join(",")
		.toLowerCase()
		.split(",")
		.map(trim);
	return (
		options.includes("close") ||
		(version === "1.0" && !options.includes("keep-alive"))
	);
}

/** What the gate reads of a request's header lines; all else is dropped unread. */
export interface Head {
	/** Every value of a header that must not stand twice. */
	readonly host: readonly string[];
	readonly authorization: readonly string[];
	readonly apiKey: readonly string[];
	readonly origin: readonly string[];
	readonly contentLength: readonly string[];
	readonly contentType: readonly string[];
	readonly contentEncoding: readonly string[];
	readonly transferEncoding: readonly string[];
	readonly expect: readonly string[];
	readonly upgrade: readonly string[];
	/** `x-llamagate-priority` */
	readonly priority: readonly string[];
	/** `x-llamagate-upstream` */
	readonly upstream: readonly string[];
	/** `x-llamagate-hop`: another gate has sent it on. */
	readonly hop: readonly string[];
	/** The first header by which clients of other services send a key, which is not read here; one of a fixed list. */
	readonly otherKeyHeader: string | undefined;
	/** Lower-case names that `Connection` makes hop-by-hop (RFC 9110, 7.6.1). */
	readonly connectionOptions: ReadonlySet<string>;
	/** What may go upstream: names and values in turn. */
	readonly forwarded: readonly string[];
}

type Single = Exclude<
	keyof Head,
	"otherKeyHeader" | "connectionOptions" | "forwarded"
>;

type Writable<T> = { -readonly [K in keyof T]: T[K] };

const singles = new Map<string, Single>([
	["host", "host"],
	["authorization", "authorization"],
	["x-api-key", "apiKey"],
	["origin", "origin"],
	["content-length", "contentLength"],
	["content-type", "contentType"],
	["content-encoding", "contentEncoding"],
	["transfer-encoding", "transferEncoding"],
	["expect", "expect"],
	["upgrade", "upgrade"],
	["x-llamagate-priority", "priority"],
	["x-llamagate-upstream", "upstream"],
	["x-llamagate-hop", "hop"],
]);

/** Google's, Azure's and others' headers for a key. */
const otherKeyHeaders = new Set([
	"x-goog-api-key",
	"api-key",
	"apikey",
	"x-apikey",
	"x-api-token",
	"x-auth-token",
	"x-access-token",
	"proxy-authorization",
]);

/**
 * The header lines that Ollama may see, by exact name: no spelling with an
 * underscore, no forwarded address, no cookie and no credential is among them.
 * For cloud models Ollama passes on what it gets to ollama.com.
 */
const forwardable = new Set([
	"accept",
	"content-type",
	"user-agent",
	"anthropic-version",
	"anthropic-beta",
]);

/** Where a header is absent. Nothing is ever put into it. */
const none: string[] = [];
const noOptions: ReadonlySet<string> = new Set();

/** Reads the header lines once, in order, as they came (`IncomingMessage.rawHeaders`). */
export function readHead(rawHeaders: readonly string[]): Head {
	const head: Writable<Head> & Record<Single, string[]> = {
		host: none,
		authorization: none,
		apiKey: none,
		origin: none,
		contentLength: none,
		contentType: none,
		contentEncoding: none,
		transferEncoding: none,
		expect: none,
		upgrade: none,
		priority: none,
		upstream: none,
		hop: none,
		otherKeyHeader: undefined,
		connectionOptions: noOptions,
		forwarded: none,
	};
	let options: Set<string> | undefined;
	let forwarded: string[] = [];
	for (let i = 0; i < rawHeaders.length; i += 2) {
		const name = (rawHeaders[i] ?? "").toLowerCase();
		const value = rawHeaders[i + 1] ?? "";
		const single = singles.get(name);
		if (single !== undefined) {
			// A thousand lines fit into a head: each may cost no more than a constant.
			const known = head[single];
			if (known === none) head[single] = [value];
			else known.push(value);
		}
		if (name === "connection") {
			options ??= new Set();
			for (const option of value.split(","))
				options.add(option.trim().toLowerCase());
		} else if (forwardable.has(name)) forwarded.push(name, value);
		else if (single === undefined && otherKeyHeaders.has(name))
			head.otherKeyHeader ??= name;
	}
	if (options !== undefined) {
		const connectionOptions = options;
		head.connectionOptions = options;
		const kept: string[] = [];
		for (let i = 0; i < forwarded.length; i += 2) {
			const name = forwarded[i] ?? "";
			if (!connectionOptions.has(name)) kept.push(name, forwarded[i + 1] ?? "");
		}
		forwarded = kept;
	}
	head.forwarded = forwarded;
	return head;
}

/** What Ollama sees of the header lines, names and values in turn; its `Host` and the body's framing are added. */
export function headersForOllama({
	forwarded,
	contentEncoding,
}: Head): readonly string[] {
	// Any other was refused with the route.
	return contentEncoding[0] === "zstd"
		? [...forwarded, "content-encoding", "zstd"]
		: forwarded;
}

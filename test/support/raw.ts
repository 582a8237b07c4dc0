import { connect, type Socket } from "node:net";
import path from "node:path";
import { askDaemon } from "../../src/admin/client.ts";
import type { GateStatus } from "../../src/admin/status.ts";
import { type TestGate, testKeys } from "./gate.ts";

/** One reply as it came over the wire. */
export interface RawReply {
	readonly status: number;
	/** Lower-case names; a header that stands twice is joined with ", ". */
	readonly headers: Readonly<Record<string, string>>;
	readonly body: string;
}

/** A connection whose every byte is in the test's hands. Text is Latin-1, a character a byte. */
export interface RawClient {
	readonly socket: Socket;
	/** Everything received so far. */
	text(): string;
	/** The whole replies among it, in order, interim ones (100) included. */
	replies(): RawReply[];
	write(bytes: string | Buffer): void;
	/** Waits for the condition on what was received, or for the connection's end. */
	until(condition: (text: string) => boolean): Promise<void>;
	/** Waits for so many whole final replies, or for the connection's end. */
	untilReplies(count: number): Promise<RawReply[]>;
	/** Resolves when the gate has closed the connection. */
	readonly closed: Promise<void>;
	isClosed(): boolean;
	destroy(): void;
}

/** Where honest requests come from in these tests; attacks come from other addresses. */
export const honestAddress = "127.0.0.9";

/** Joins header lines, with the empty line behind them. */
export function head(...lines: readonly string[]): string {
	return `${lines.join("\r\n")}\r\n\r\n`;
}

/** A request with a body, and its length unless the lines tell it. */
export function post(
	target: string,
	body: string,
	...lines: readonly string[]
): string {
	return `${head(
		`POST ${target} HTTP/1.1`,
		"Host: gate",
		...lines,
		`Content-Length: ${Buffer.byteLength(body, "latin1")}`,
	)}${body}`;
}

/** One chunk of a chunked body. */
export function chunk(data: string): string {
	return `${data.length.toString(16)}\r\n${data}\r\n`;
}

/** The header line that shows a key. */
export function shows(key: string): string {
	return `Authorization: Bearer ${key}`;
}

/** What an attacker would hide behind a request that two readers frame differently. */
export const hiddenRequest = head(
	"GET /api/tags HTTP/1.1",
	"Host: gate",
	shows(testKeys.owner),
);

/** A POST that goes on, with these header lines, and what follows its head as it is. */
export function framed(
	lines: readonly string[],
	rest: string,
	key?: string,
	version = "1.1",
): string {
	return `${head(
		`POST /api/embed HTTP/${version}`,
		"Host: gate",
		"Connection: keep-alive",
		...(key === undefined ? [] : [shows(key)]),
		...lines,
	)}${rest}`;
}

const patienceMs = 180_000;

/**
 * Waits for something that must come; a test that waits for ever says nothing.
 * How long is a guard, far beyond what it takes where much else runs.
 *
 * @param what finishes the sentence "in vain for …"
 */
export async function within<T>(promise: Promise<T>, what: string): Promise<T> {
	const { promise: late, reject } = Promise.withResolvers<never>();
	const timer = setTimeout(
		() => reject(new Error(`waited ${patienceMs} ms in vain for ${what}`)),
		patienceMs,
	);
	try {
		return await Promise.race([promise, late]);
	} finally {
		clearTimeout(timer);
	}
}

/** Opens a connection, from any loopback address to any. */
export async function openRaw(
	port: number,
	from = "127.0.0.1",
	host = "127.0.0.1",
): Promise<RawClient> {
	const socket = connect({ port, host, localAddress: from });
	let text = "";
	let ended = false;
	const waiting = new Set<() => void>();
	const look = () => {
		for (const check of waiting) check();
	};
	socket.setEncoding("latin1");
	socket.on("data", (more: string) => {
		text += more;
		look();
	});
	const closed = new Promise<void>((resolve) => {
		const end = () => {
			ended = true;
			look();
			resolve();
		};
		socket.once("close", end);
		// A reset is one of the ways in which the gate may end it. And when a socket is
		// reset that is just being shut down, Node says "error" and never "close".
		socket.on("error", end);
	});
	await Promise.race([
		new Promise((resolve) => socket.once("connect", resolve)),
		closed,
	]);
	const until = (condition: (text: string) => boolean) =>
		new Promise<void>((resolve) => {
			const check = () => {
				if (!ended && !condition(text)) return;
				waiting.delete(check);
				resolve();
			};
			waiting.add(check);
			check();
		});
	return {
		socket,
		text: () => text,
		replies: () => parseReplies(text),
		write(bytes) {
			if (socket.writable)
				socket.write(
					typeof bytes === "string" ? Buffer.from(bytes, "latin1") : bytes,
				);
		},
		until: (condition) => within(until(condition), "more of a reply"),
		async untilReplies(count) {
			await within(
				until((text) => finalReplies(parseReplies(text)).length >= count),
				`${count} replies; so far there is ${JSON.stringify(text.slice(0, 500))}`,
			);
			return finalReplies(parseReplies(text));
		},
		closed,
		isClosed: () => ended,
		destroy: () => void socket.destroy(),
	};
}

function finalReplies(replies: readonly RawReply[]): RawReply[] {
	return replies.filter(({ status }) => status >= 200);
}

/** The replies among what a server sent that are whole, as `splitReplies` finds them. */
export function parseReplies(
	text: string,
	methods: readonly string[] = [],
): RawReply[] {
	return splitReplies(text, methods).replies;
}

/**
 * Splits what a server sent into the replies that are whole, and the rest behind them.
 *
 * @param methods of the requests, in order, where HEAD is among them: its replies have no body
 */
export function splitReplies(
	text: string,
	methods: readonly string[] = [],
): { replies: RawReply[]; rest: string } {
	const replies: RawReply[] = [];
	let rest = text;
	for (;;) {
		const headEnd = rest.indexOf("\r\n\r\n");
		const statusLine = /^HTTP\/1\.[01] (\d{3})/.exec(rest);
		if (headEnd === -1 || statusLine === null) return { replies, rest };
		const status = Number(statusLine[1]);
		const headers: Record<string, string> = {};
		for (const line of rest.slice(0, headEnd).split("\r\n").slice(1)) {
			const colonAt = line.indexOf(":");
			const name = line.slice(0, colonAt).toLowerCase();
			const value = line.slice(colonAt + 1).trim();
			headers[name] =
				headers[name] === undefined ? value : `${headers[name]}, ${value}`;
		}
		const afterHead = rest.slice(headEnd + 4);
		const found =
			methods[finalReplies(replies).length] === "HEAD"
				? { body: "", size: 0 }
				: readBody(status, headers, afterHead);
		if (found === undefined) return { replies, rest };
		replies.push({ status, headers, body: found.body });
		rest = afterHead.slice(found.size);
	}
}

function readBody(
	status: number,
	headers: Readonly<Record<string, string>>,
	bytes: string,
): { body: string; size: number } | undefined {
	if (status < 200 || status === 204 || status === 304)
		return { body: "", size: 0 };
	if (headers["transfer-encoding"] === "chunked") {
		let body = "";
		let at = 0;
		for (;;) {
			const lineEnd = bytes.indexOf("\r\n", at);
			const size = Number.parseInt(bytes.slice(at, lineEnd), 16);
			const end = lineEnd + 2 + size + 2;
			// Cut in the middle of a chunk's size, or no size at all.
			if (lineEnd === -1 || !Number.isInteger(size) || end > bytes.length)
				return undefined;
			if (size === 0) return { body, size: end };
			body += bytes.slice(lineEnd + 2, end - 2);
			at = end;
		}
	}
	const length = Number(headers["content-length"] ?? "0");
	return bytes.length < length
		? undefined
		: { body: bytes.slice(0, length), size: length };
}

/** How an attack ended. */
export interface Outcome {
	/** Of the first final reply; 0 if the connection was closed without one. */
	readonly status: number;
	readonly replies: readonly RawReply[];
	readonly closed: boolean;
}

/** Sends bytes on a connection of their own and waits for a reply or for its end. */
export async function attack(
	gate: TestGate,
	bytes: string | Buffer,
	from = "127.0.0.1",
): Promise<Outcome> {
	const client = await openRaw(gate.port, from);
	try {
		client.write(bytes);
		const replies = await client.untilReplies(1);
		return {
			status: replies[0]?.status ?? 0,
			replies,
			closed: client.isClosed(),
		};
	} finally {
		client.destroy();
	}
}

/** Whether the gate has turned it away: a 4xx, or a connection that was closed without a word. */
export function isTurnedAway({ status, closed }: Outcome): boolean {
	return status === 0 ? closed : status >= 400 && status < 500;
}

/** The status that an honest client gets now, from an address of its own. */
export async function honestStatus(
	gate: TestGate,
	from = honestAddress,
): Promise<number> {
	const { status } = await attack(
		gate,
		head(
			"GET /api/version HTTP/1.1",
			"Host: gate",
			shows(testKeys.reader),
			"Connection: close",
		),
		from,
	);
	return status;
}

/** What reached Ollama beside honestStatus's requests. */
export function strayCalls(gate: TestGate): string[] {
	return gate.standIn.calls
		.map(({ method, target }) => `${method} ${target}`)
		.filter((line) => line !== "GET /api/version");
}

/** The daemon's own count of its connections, requests at work and locked-out addresses. */
export async function statusOf(gate: TestGate): Promise<GateStatus> {
	const answer = await askDaemon(
		path.join(gate.folder, "admin.sock"),
		"GET /status",
	);
	if (answer.status !== 200)
		throw new Error("the daemon does not answer on its admin socket");
	return JSON.parse(answer.body) as GateStatus;
}

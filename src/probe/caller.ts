import { Agent } from "undici";
import { codeOf } from "../net/errorCode.ts";
import type { Family } from "../ollama/routes.ts";

const connectTimeoutMs = 5_000;
/** For calls that need no model. */
const callTimeoutMs = 10_000;
/** Waiting for a server that no longer answers comes to an end: after one call and three connections, at the earliest. */
const maxLostMs = 25_000;
const maxReplyBytes = 4 * 2 ** 20;

export interface Request {
	readonly method: string;
	/** Sent as it is: no cleaning of dots, slashes or percent signs. */
	readonly path: string;
	readonly key?: string;
	readonly headers?: Readonly<Record<string, string>>;
	readonly body?: string;
}

/** What a server answered. */
export interface Reply {
	readonly status: number;
	/** Lower-case names; of a header that is there twice, both values. */
	readonly headers: Readonly<Record<string, string>>;
	/** Up to 4 MiB. */
	readonly body: string;
	/** Why the body is not whole, if it is not. */
	readonly broken?: string;
	readonly durationMs: number;
}

/** There was no answer. */
export interface NoReply {
	readonly code: string;
}

/** A stream that has begun. */
export interface OpenReply {
	readonly status: number;
	readonly headers: Readonly<Record<string, string>>;
	readonly chunks: AsyncIterable<Buffer>;
	/** Leaves at once, as a client does that is closed. */
	leave(): void;
}

/** How long a reply may take. */
export interface Patience {
	/** Until its head is there. */
	readonly waitMs: number;
	/** Between two pieces of its body. */
	readonly silenceMs: number;
	/** Until all of it is there. */
	readonly wholeMs: number;
}

/** Makes HTTP calls to one server, always to the addresses that were looked at before. */
export interface Caller {
	readonly origin: string;
	call(request: Request): Promise<Reply | NoReply>;
	open(request: Request, patience: Patience): Promise<OpenReply | NoReply>;
	close(): Promise<void>;
}

export function isReply<T extends { readonly status: number }>(
	outcome: T | NoReply,
): outcome is T {
	return "status" in outcome;
}

/** Makes a call that changes nothing, and once more if the connection was lost: that happens on any way. */
export async function callTwice(
	caller: Caller,
	request: Request,
): Promise<Reply | NoReply> {
	const reply = await caller.call(request);
	const loss = isReply(reply) ? reply.broken : reply.code;
	return loss !== undefined && /^(ECONNRESET|EPIPE|UND_ERR_SOCKET)$/.test(loss)
		? caller.call(request)
		: reply;
}

/**
 * @param origin `http://host:port`
 * @param addresses those that the host has; no other is connected to
 * @param isOwnHost whether they are this host's own, where it does not matter who vouches for a certificate
 */
export function openCaller(
	origin: string,
	addresses: readonly string[],
	isOwnHost = false,
): Caller {
	const known = addresses.map((address) => ({
		address,
		family: address.includes(":") ? 6 : 4,
	}));
	const agent = new Agent({
		connections: 8,
		connect: {
			timeout: connectTimeoutMs,
			autoSelectFamily: true,
			// Else NODE_TLS_REJECT_UNAUTHORIZED in the environment would switch it off.
			rejectUnauthorized: !isOwnHost,
			lookup: (_host, { all }, done) => {
				const [first] = known;
				if (all === true || first === undefined) done(null, known);
				else done(null, first.address, first.family);
			},
		},
	});

	/** Spent on calls that got no answer. */
	let lostMs = 0;

	async function begin(
		{ method, path, key, headers, body }: Request,
		waitMs: number,
		silenceMs: number,
		signal: AbortSignal,
	) {
		return agent.request({
			origin,
			path,
			// undici's type knows no others; what is sent is what is given.
			method: method as "GET",
			headers: {
				accept: "*/*",
				...(key === undefined ? {} : { authorization: `Bearer ${key}` }),
				...(body === undefined ? {} : { "content-type": "application/json" }),
				...headers,
			},
			headersTimeout: waitMs,
			bodyTimeout: silenceMs,
			signal,
			...(body === undefined ? {} : { body }),
		});
	}

	return {
		origin,
		async call(request) {
			if (lostMs > maxLostMs)
				return { code: "not tried, the server was silent too often" };
			const startedAt = performance.now();
			try {
				const { statusCode, headers, body } = await begin(
					request,
					callTimeoutMs,
					callTimeoutMs,
					AbortSignal.timeout(callTimeoutMs),
				);
				const read = await readBody(body, maxReplyBytes);
				if (read.broken !== undefined) lostMs += performance.now() - startedAt;
				return {
					status: statusCode,
					headers: plain(headers),
					...read,
					durationMs: performance.now() - startedAt,
				};
			} catch (error) {
				lostMs += performance.now() - startedAt;
				return { code: codeOf(error) };
			}
		},
		async open(request, { waitMs, silenceMs, wholeMs }) {
			const leaving = new AbortController();
			try {
				const reply = await begin(
					request,
					waitMs,
					silenceMs,
					AbortSignal.any([leaving.signal, AbortSignal.timeout(wholeMs)]),
				);
				return {
					status: reply.statusCode,
					headers: plain(reply.headers),
					chunks: reply.body,
					leave: () => leaving.abort(),
				};
			} catch (error) {
				return { code: codeOf(error) };
			}
		},
		close: () => agent.destroy(),
	};
}

/** With the one Host that an Ollama on loopback takes from anybody (server/routes.go:allowedHostsMiddleware): anyone who wants in says so. */
export function asLocal(caller: Caller): Caller {
	const host = "127.0.0.1:11434";
	return {
		...caller,
		call: (request) =>
			caller.call({ ...request, headers: { host, ...request.headers } }),
	};
}

/** Reads so much of a body and no more, and says why where it is not whole. */
export async function readBody(
	chunks: AsyncIterable<Buffer>,
	maxBytes: number,
): Promise<{ body: string; broken?: string }> {
	const parts: Buffer[] = [];
	let sizeBytes = 0;
	let broken: string | undefined;
	try {
		for await (const chunk of chunks) {
			sizeBytes += chunk.length;
			if (sizeBytes > maxBytes) {
				broken = "too long a reply";
				break;
			}
			parts.push(chunk);
		}
	} catch (error) {
		broken = codeOf(error);
	}
	const body = Buffer.concat(parts).toString();
	return broken === undefined ? { body } : { body, broken };
}

function plain(
	headers: Record<string, string | string[] | undefined>,
): Record<string, string> {
	return Object.fromEntries(
		Object.entries(headers).map(([name, value]) => [name, String(value ?? "")]),
	);
}

/** The message of an error in its family's shape; `undefined` if it has not that shape, or more than one line. */
export function readError(family: Family, body: string): string | undefined {
	if (body.trim().includes("\n")) return undefined;
	const value = readObject(body);
	const error = value?.error;
	const message =
		family === "native" ? error : isObject(error) ? error.message : undefined;
	const isTyped =
		family === "native" ||
		(isObject(error) &&
			typeof error.type === "string" &&
			(family === "openai" || value?.type === "error"));
	return isTyped && typeof message === "string" && message !== ""
		? message
		: undefined;
}

export function readObject(text: string): Record<string, unknown> | undefined {
	try {
		const value: unknown = JSON.parse(text);
		return isObject(value) ? value : undefined;
	} catch {
		return undefined;
	}
}

export function isObject(value: unknown): value is Record<string, unknown> {
	return typeof value === "object" && value !== null && !Array.isArray(value);
}

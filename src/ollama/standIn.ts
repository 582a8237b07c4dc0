import { createHash, type Hash } from "node:crypto";
import { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { hostname } from "node:os";
import { zstdDecompressSync } from "node:zlib";
import { createServer } from "../net/http.ts";
import { formatHostPort, isLoopbackAddress } from "../net/ranges.ts";
import { errorBody } from "./errors.ts";
import { formatModelName, parseModelName } from "./modelName.ts";
import { familyOf, matchRoute, routes } from "./routes.ts";
import {
	describeModel,
	type Generation,
	replyShapeOf,
} from "./standInReplies.ts";

/**
 * A stand-in for Ollama where none can be had: for `llamagate demo`, the tests
 * and the benchmark. It keeps to what a gate can notice of the real server:
 * nothing at all before the first token, one JSON line a token, 403 without a
 * body for a foreign Host or Origin, paths matched after decoding, no timeouts,
 * and an eye on clients that leave.
 */
export interface StandIn {
	readonly port: number;
	readonly url: string;
	/** Every call that arrived, oldest first, as long as `remember` is set. */
	readonly calls: Call[];
	/** `call` when a request's head has arrived, `body` when all of it has, `abort` when its client left early. */
	readonly events: EventEmitter<{ call: [Call]; body: [Call]; abort: [Call] }>;
	/** Calls that have neither been answered nor aborted. */
	activeCalls(): number;
	/** Connections that are open now. */
	openConnections(): Promise<number>;
	close(): Promise<void>;
}

/** One request as the stand-in saw it. */
export interface Call {
	readonly method: string;
	/** The request line's target, undecoded. */
	readonly target: string;
	readonly rawHeaders: readonly string[];
	readonly headers: NodeJS.Dict<string | string[]>;
	readonly arrivedAtMs: number;
	bodyBytes: number;
	/** The body, unless it is a blob. */
	body: Buffer;
	/** What it holds, if it came packed and Ollama unpacks it. */
	unpacked?: Buffer | undefined;
	/** When the client's leaving was noticed, on performance.now()'s clock. */
	abortedAtMs: number | undefined;
	finished: boolean;
}

/** Ways to fail, each as a real server or runner does. */
export type Misbehaviour =
	| "hang"
	| "reset"
	| "reset-after-headers"
	| "die-mid-stream"
	| "stall-after-headers"
	| "stall-mid-stream"
	| "truncate"
	| "error-mid-stream"
	| "garbage"
	| "wrong-length"
	| "huge-header"
	| "redirect"
	| "early-hints"
	| "never-read";

export interface StandInOptions {
	/** The address it listens on; 127.0.0.1 if none is given. */
	readonly host?: string;
	readonly port?: number;
	readonly socketPath?: string;
	readonly models?: readonly string[];
	/** Digests of model files that it has from the start. */
	readonly blobs?: readonly string[];
	/** Its own version, 0.35.0 if none is given. */
	readonly version?: string;
	/** Whether cloud models are off (OLLAMA_NO_CLOUD). */
	readonly noCloud?: boolean;
	/** Silence before the first token: the model loads and reads the prompt. */
	readonly firstTokenMs?: number;
	readonly tokenIntervalMs?: number;
	/** Asked for each call; what it returns goes wrong. */
	readonly misbehave?: (call: Call) => Misbehaviour | undefined;
	/** Whether to keep a record of calls and bodies; off where there are millions. */
	readonly remember?: boolean;
}

const answer =
	"This is llamagate's built-in stand-in speaking, not a model. It answers as Ollama does, one token at a time, " +
	"so that you can watch a stream come through the gate as it is made. Put a real Ollama on this machine, " +
	"start the demo again, and the same three commands will reach it instead.";
const answerTokens = answer.match(/\S+\s?|\s/g) ?? [];
const emptyBody = Buffer.alloc(0);

/** Starts a stand-in on loopback, or on a Unix socket. */
export async function startStandIn(
	options: StandInOptions = {},
): Promise<StandIn> {
	const {
		host = "127.0.0.1",
		models = ["qwen3:8b", "llama3.2:3b", "nomic-embed-text:latest"],
		version = "0.35.0",
		noCloud = false,
		firstTokenMs = 0,
		tokenIntervalMs = 0,
	} = options;
	const remember = options.remember ?? true;
	const calls: Call[] = [];
	const events: StandIn["events"] = new EventEmitter();
	/** Digests of the model files that it has. */
	const blobs = new Set<string>(options.blobs);
	let port = 0;
	let activeCalls = 0;

	const server = createServer(
		{ keepAlive: true, noDelay: true },
		(req, res) => void serve(req, res),
	);
	server.keepAliveTimeout = 0;
	server.requestTimeout = 0;
	server.headersTimeout = 0;

	async function serve(
		req: IncomingMessage,
		res: ServerResponse,
	): Promise<void> {
		const call: Call = {
			method: req.method ?? "",
			target: req.url ?? "",
			rawHeaders: req.rawHeaders,
			headers: req.headers,
			arrivedAtMs: performance.now(),
			bodyBytes: 0,
			body: emptyBody,
			abortedAtMs: undefined,
			finished: false,
		};
		if (remember) calls.push(call);
		activeCalls += 1;
		res.once("close", () => {
			activeCalls -= 1;
			call.finished = res.writableFinished;
			if (call.finished) return;
			call.abortedAtMs = performance.now();
			events.emit("abort", call);
		});
		events.emit("call", call);

		const misbehaviour = options.misbehave?.(call);
		if (misbehaviour === "reset") return void req.socket.resetAndDestroy();
		if (misbehaviour === "never-read") return;
		// middleware order of server/routes.go: Host, then Origin, before any route
		// A server on any other address than loopback takes every Host (allowedHostsMiddleware).
		if (isLoopbackAddress(host) && !isLocalHost(req.headers.host))
			return plain(res, 403, "");
		const { origin } = req.headers;
		if (origin !== undefined && !isAllowedOrigin(origin))
			return plain(res, 403, "");
		if (origin !== undefined)
			res.setHeader("access-control-allow-origin", origin);

		const path = decodePath(call.target);
		if (path === undefined) return plain(res, 400, "");
		const clean = cleanPath(path);
		if (clean !== path) {
			res.writeHead(call.method === "GET" ? 301 : 307, { location: clean });
			return void res.end();
		}
		if (call.method === "POST" && blobs.has(digestIn(path))) {
			// It has the file, and does not look at this one (server/routes.go:CreateBlobHandler).
			events.emit("body", call);
			return plain(res, 200, "");
		}
		const hash = path.startsWith("/api/blobs/")
			? createHash("sha256")
			: undefined;
		if (!(await readBody(req, call, hash))) return;
		if (hash !== undefined && call.method === "POST") {
			const digest = `sha256:${hash.digest("hex")}`;
			if (digest !== digestIn(path))
				return json(res, 400, {
					error: `digest mismatch, expected "${digestIn(path)}", got "${digest}"`,
				});
			blobs.add(digest);
		}
		if (
			req.headers["content-encoding"] === "zstd" &&
			routes.some((route) => route.path === path && route.unpacksZstd === true)
		)
			call.unpacked = unpackAll(call.body);
		events.emit("body", call);
		if (misbehaviour === "hang") return;
		if (
			misbehaviour !== undefined &&
			misbehaveBeforeHeaders(misbehaviour, req, res)
		)
			return;
		await route(call, path, res, misbehaviour);
	}

	async function readBody(
		req: IncomingMessage,
		call: Call,
		hash: Hash | undefined,
	): Promise<boolean> {
		const chunks: Buffer[] = [];
		try {
			for await (const chunk of req as AsyncIterable<Buffer>) {
				call.bodyBytes += chunk.length;
				if (hash === undefined) chunks.push(chunk);
				else hash.update(chunk);
			}
		} catch {
			return false;
		}
		if (chunks.length > 0) call.body = Buffer.concat(chunks);
		return true;
	}

	async function route(
		call: Call,
		path: string,
		res: ServerResponse,
		misbehaviour: Misbehaviour | undefined,
	): Promise<void> {
		const id = `${call.method === "HEAD" ? "GET" : call.method} ${path}`;
		const fail = (status: number, message: string) =>
			json(res, status, ownError(path, status, message));
		if (matchRoute(call.method, path).kind === "wrong-method")
			return plain(res, 405, "405 method not allowed");
		switch (id) {
			case "GET /":
				return plain(res, 200, "Ollama is running");
			case "GET /api/version":
				return json(res, 200, { version });
			case "GET /api/tags":
				return json(res, 200, { models: models.map(describeModel) });
			case "GET /api/ps":
				return json(res, 200, { models: [] });
			case "GET /api/status":
				return json(res, 200, { cloud: { disabled: noCloud } });
			case "GET /v1/models":
				return json(res, 200, {
					object: "list",
					data: models.map(openaiModel),
				});
			case "GET /api/experimental/model-recommendations":
				return json(res, 200, { recommendations: [] });
			case "POST /api/me":
				// ollama.com cannot be asked.
				return json(res, 503, { error: "account unavailable" });
			case "POST /api/signout":
				return json(res, 200, {});
			case "POST /api/experimental/web_search":
			case "POST /api/experimental/web_fetch":
				return json(res, 200, { results: [] });
		}
		if (call.method === "GET" && path.startsWith("/v1/models/")) {
			const name = path.slice("/v1/models/".length);
			const known = models.find((one) => isSameModel(one, name));
			return known !== undefined
				? json(res, 200, openaiModel(known))
				: fail(404, `model '${name}' not found`);
		}
		if (path.startsWith("/api/blobs/")) {
			if (call.method === "POST") return plain(res, 201, "");
			if (call.method === "HEAD")
				return plain(res, blobs.has(digestIn(path)) ? 200 : 404, "");
		}
		if (path.startsWith("/api/codex/")) return json(res, 200, { ok: true });
		if (call.method === "DELETE" && path.startsWith("/api/user/keys/"))
			return json(res, 200, {});
		if (id === "POST /v1/audio/transcriptions")
			return json(res, 200, { text: answerTokens.slice(0, 8).join("") });

		const isKnown =
			replyShapeOf(path, false) !== undefined || plainPosts.has(id);
		if (!isKnown) return plain(res, 404, "404 page not found");
		if (call.body.length === 0) return fail(400, "missing request body");
		const body = decodeBody(call.unpacked ?? call.body);
		if (body === undefined)
			return fail(400, "invalid character in request body");
		const model =
			text(field(body, "model")) ||
			text(field(body, "name")) ||
			text(field(body, "source"));
		if (model === "" && isMaking(id)) return fail(400, "invalid model name");
		if (!isMaking(id) && !models.some((known) => isSameModel(known, model)))
			return fail(404, `model '${model}' not found`);
		await reply(id, path, model, body, res, misbehaviour);
	}

	async function reply(
		id: string,
		path: string,
		model: string,
		body: Record<string, unknown>,
		res: ServerResponse,
		misbehaviour: Misbehaviour | undefined,
	): Promise<void> {
		const vector = Array.from({ length: 8 }, (_, i) => Math.sin(i + 1));
		switch (id) {
			case "POST /api/show":
				return json(res, 200, {
					license: "",
					details: describeModel(model).details,
					model_info: {},
					capabilities: ["completion"],
				});
			case "POST /api/embed":
				await pause(firstTokenMs);
				return json(res, 200, {
					model,
					embeddings: [vector],
					total_duration: 1_000_000,
					load_duration: 100_000,
					prompt_eval_count: 5,
				});
			case "POST /api/embeddings":
				await pause(firstTokenMs);
				return json(res, 200, { embedding: vector });
			case "POST /v1/embeddings":
				await pause(firstTokenMs);
				return json(res, 200, {
					object: "list",
					data: [{ object: "embedding", embedding: vector, index: 0 }],
					model,
					usage: { prompt_tokens: 5, total_tokens: 5 },
				});
			case "POST /v1/responses/compact":
				await pause(firstTokenMs);
				return json(res, 200, {
					id: "resp_compact_1",
					object: "response.compaction",
					created_at: Math.floor(Date.now() / 1000),
					output: [
						{ type: "compaction", encrypted_content: '{"summary":"a"}' },
					],
					usage: {
						input_tokens: 5,
						input_tokens_details: { cached_tokens: 0 },
						output_tokens: 3,
						output_tokens_details: { reasoning_tokens: 0 },
						total_tokens: 8,
					},
				});
			case "POST /api/copy":
			case "DELETE /api/delete":
				return plain(res, 200, "");
			case "POST /api/pull":
			case "POST /api/push":
			case "POST /api/create":
				res.writeHead(200, { "content-type": "application/x-ndjson" });
				for (const status of [
					"pulling manifest",
					"verifying sha256 digest",
					"success",
				]) {
					res.write(`${JSON.stringify({ status })}\n`);
					await pause(tokenIntervalMs);
				}
				return void res.end();
		}
		await generate(path, model, body, res, misbehaviour);
	}

	async function generate(
		path: string,
		model: string,
		body: Record<string, unknown>,
		res: ServerResponse,
		misbehaviour: Misbehaviour | undefined,
	): Promise<void> {
		const shape = replyShapeOf(
			path,
			field(field(body, "stream_options"), "include_usage") === true,
		);
		if (shape === undefined) return;
		const wanted =
			field(field(body, "options"), "num_predict") ??
			field(body, "max_tokens") ??
			field(body, "max_output_tokens");
		const count =
			typeof wanted === "number" && wanted > 0 ? wanted : answerTokens.length;
		const tokens = Array.from(
			{ length: count },
			(_, i) => answerTokens[i % answerTokens.length] ?? "",
		);
		const generation: Generation = {
			model,
			tokens,
			startedAtMs: performance.now(),
			request: body,
		};
		const stream = field(body, "stream");
		const streams = path.startsWith("/api/")
			? stream !== false
			: stream === true;

		// Not a byte before the first token: that is what a loading model looks like.
		await pause(firstTokenMs);
		if (res.destroyed) return;
		if (!streams) {
			await pause(tokenIntervalMs * tokens.length);
			return res.destroyed
				? undefined
				: json(res, 200, shape.whole(generation));
		}
		res.writeHead(200, { "content-type": shape.contentType });
		if (misbehaviour === "reset-after-headers") {
			res.flushHeaders();
			return void setImmediate(() => res.socket?.resetAndDestroy());
		}
		if (misbehaviour === "stall-after-headers") {
			res.flushHeaders();
			return;
		}
		if (shape.begin !== undefined) res.write(shape.begin(generation));
		const breakAfter = Math.min(3, tokens.length - 1);
		for (const [index, token] of tokens.entries()) {
			if (res.destroyed) return;
			const rest = await writeToken(res, shape.token(generation, token, index));
			if (!rest) return;
			if (index !== breakAfter) continue;
			if (misbehaviour === "die-mid-stream") {
				// What was generated had left before the runner died.
				await pause(10);
				res.socket?.resetAndDestroy();
				return;
			}
			if (misbehaviour === "stall-mid-stream") return;
			if (misbehaviour === "truncate") return void res.end();
			if (misbehaviour === "error-mid-stream")
				return void res.end(shape.died(generation));
		}
		res.end(shape.end(generation));
	}

	/** Writes, then waits as long as the next token takes or the reader needs. False if the client is gone. */
	async function writeToken(
		res: ServerResponse,
		piece: string,
	): Promise<boolean> {
		if (!res.write(piece))
			await new Promise<void>((resolve) => {
				const goOn = () => {
					res.off("drain", goOn);
					res.off("close", goOn);
					resolve();
				};
				res.on("drain", goOn);
				res.on("close", goOn);
			});
		if (tokenIntervalMs > 0) await pause(tokenIntervalMs);
		return !res.destroyed;
	}

	await new Promise<void>((resolve, reject) => {
		server.once("error", reject);
		if (options.socketPath !== undefined)
			server.listen(options.socketPath, resolve);
		else server.listen(options.port ?? 0, host, resolve);
	});
	if (options.socketPath === undefined)
		({ port } = server.address() as AddressInfo);

	return {
		port,
		url:
			options.socketPath === undefined
				? `http://${formatHostPort(host, port)}`
				: `unix:${options.socketPath}`,
		calls,
		events,
		activeCalls: () => activeCalls,
		openConnections: () =>
			new Promise((resolve, reject) =>
				server.getConnections((error, count) =>
					error === null ? resolve(count) : reject(error),
				),
			),
		close: () =>
			new Promise((resolve) => {
				server.close(() => resolve());
				server.closeAllConnections();
			}),
	};
}

const plainPosts = new Set([
	"POST /api/show",
	"POST /api/embed",
	"POST /api/embeddings",
	"POST /v1/embeddings",
	"POST /v1/responses/compact",
	"POST /api/copy",
	"DELETE /api/delete",
	"POST /api/pull",
	"POST /api/push",
	"POST /api/create",
]);

function misbehaveBeforeHeaders(
	misbehaviour: Misbehaviour,
	req: IncomingMessage,
	res: ServerResponse,
): boolean {
	const { socket } = req;
	switch (misbehaviour) {
		case "garbage":
			socket.end("\x00\x01 this is not HTTP at all\r\n\r\n");
			return true;
		case "wrong-length":
			socket.end(
				"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{}",
			);
			return true;
		case "huge-header":
			socket.write(
				`HTTP/1.1 200 OK\r\nx-huge: ${"a".repeat(10 * 2 ** 20)}\r\ncontent-length: 0\r\n\r\n`,
			);
			return true;
		case "redirect":
			res.writeHead(302, { location: "http://127.0.0.1:1/elsewhere" });
			res.end();
			return true;
		case "early-hints":
			socket.write(
				"HTTP/1.1 103 Early Hints\r\nlink: </x>; rel=preload\r\n\r\n",
			);
			return false;
		default:
			return false;
	}
}

/** Whether a call brings a model that is not there yet. */
function isMaking(id: string): boolean {
	return id === "POST /api/pull" || id === "POST /api/create";
}

/** Ollama's own errors of /v1/messages have a number besides. */
function ownError(path: string, status: number, message: string): string {
	const family = familyOf(path);
	const body = errorBody(family, status, message);
	return family === "anthropic"
		? body.replace(/\}$/, ',"request_id":"req_1"}')
		: body;
}

function digestIn(path: string): string {
	return path.slice(path.lastIndexOf("/") + 1).replace("-", ":");
}

/** Every frame of a body behind the other, as Go's decoder reads them. */
function unpackAll(body: Buffer): Buffer {
	const frames: Buffer[] = [];
	for (let rest = body; rest.length > 0; ) {
		try {
			const { buffer, engine } = zstdDecompressSync(rest, {
				info: true,
			}) as unknown as {
				buffer: Buffer;
				engine: { bytesWritten: number };
			};
			frames.push(buffer);
			rest = rest.subarray(engine.bytesWritten);
		} catch {
			break;
		}
	}
	return Buffer.concat(frames);
}

function pause(durationMs: number): Promise<void> | undefined {
	return durationMs > 0
		? new Promise((resolve) => setTimeout(resolve, durationMs))
		: undefined;
}

function plain(res: ServerResponse, status: number, body: string): void {
	res.writeHead(status, {
		"content-type": "text/plain; charset=utf-8",
		"content-length": Buffer.byteLength(body),
	});
	res.end(body);
}

function json(res: ServerResponse, status: number, value: unknown): void {
	const body = typeof value === "string" ? value : JSON.stringify(value);
	res.writeHead(status, {
		"content-type": "application/json; charset=utf-8",
		"content-length": Buffer.byteLength(body),
	});
	res.end(body);
}

/** server/routes.go:allowedHost */
function isLocalHost(host: string | undefined): boolean {
	// An IPv6 address keeps its brackets where no port follows, and is none then.
	const [, bracketed, plainName] =
		/^(?:\[(.*)\]:\d*|([^:]*):\d*)$/.exec(host ?? "") ?? [];
	const name = (bracketed ?? plainName ?? host ?? "").toLowerCase();
	if (
		name === "" ||
		name === "localhost" ||
		name === hostname().toLowerCase() ||
		/\.(localhost|local|internal)$/.test(name)
	)
		return true;
	return (
		/^(127\.|10\.|192\.168\.|172\.(1[6-9]|2\d|3[01])\.)/.test(name) ||
		name === "0.0.0.0" ||
		name === "::1"
	);
}

/** envconfig/config.go:AllowedOrigins */
function isAllowedOrigin(origin: string): boolean {
	return (
		/^https?:\/\/(localhost|127\.0\.0\.1|0\.0\.0\.0)(:\d+)?$/.test(origin) ||
		/^(app|file|tauri|vscode-webview|vscode-file):\/\//.test(origin)
	);
}

/** gin matches the decoded path. */
function decodePath(target: string): string | undefined {
	const path = target.replace(/^https?:\/\/[^/]*/, "").replace(/\?.*$/s, "");
	try {
		return decodeURIComponent(path);
	} catch {
		return undefined;
	}
}

function cleanPath(path: string): string {
	const parts: string[] = [];
	for (const part of path.split("/")) {
		if (part === "..") parts.pop();
		else if (part !== "" && part !== ".") parts.push(part);
	}
	return `/${parts.join("/")}`;
}

function openaiModel(id: string) {
	return { id, object: "model", created: 1_755_766_800, owned_by: "library" };
}

/** Go's decoder reads the first value of a body and never looks at what follows. */
function decodeBody(body: Buffer): Record<string, unknown> | undefined {
	const text = body.toString("utf8");
	for (const end of [text.length, firstValueEnd(text)]) {
		try {
			const value: unknown = JSON.parse(text.slice(0, end));
			return typeof value === "object" && value !== null
				? (value as Record<string, unknown>)
				: undefined;
		} catch {
			// Not whole, or more than one.
		}
	}
	return undefined;
}

function firstValueEnd(text: string): number {
	let depth = 0;
	for (let at = 0; at < text.length; at++) {
		const letter = text[at];
		if (letter === '"') {
			for (at += 1; at < text.length && text[at] !== '"'; at++)
				if (text[at] === "\\") at += 1;
		} else if (letter === "{" || letter === "[") depth += 1;
		else if (letter === "}" || letter === "]") {
			depth -= 1;
			if (depth === 0) return at + 1;
		}
	}
	return 0;
}

/** Go takes a field by any spelling of its case, and the last one of them. */
function field(value: unknown, name: string): unknown {
	if (typeof value !== "object" || value === null) return undefined;
	return Object.entries(value).findLast(
		([key]) => key.toLowerCase().replaceAll("\u017f", "s") === name,
	)?.[1];
}

function text(value: unknown): string {
	return typeof value === "string" ? value : "";
}

function isSameModel(known: string, asked: string): boolean {
	const name = parseModelName(asked);
	const own = parseModelName(known);
	return (
		name !== undefined &&
		own !== undefined &&
		formatModelName(name) === formatModelName(own)
	);
}

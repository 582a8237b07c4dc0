import { createHash, type Hash } from "node:crypto";
import { EventEmitter } from "node:events";
import type { IncomingMessage, ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { zstdDecompressSync } from "node:zlib";
import { createServer } from "../net/http.ts";
import { formatHostPort, isLoopbackAddress } from "../net/ranges.ts";
import { routes } from "./routes.ts";
import { type Host, json, send } from "./standIn/call.ts";
import { admit, plainPath, type Turned } from "./standIn/door.ts";
import { midStream } from "./standIn/generation.ts";
import { answer } from "./standIn/handlers.ts";
import { digestIn, isDigest } from "./standIn/managing.ts";
import { createModels, type ModelOption } from "./standIn/models.ts";
import { createScheduler, type Scheduler } from "./standIn/scheduler.ts";

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
	/** What is loaded, who waits for a load, and what happens to both. */
	readonly scheduler: Scheduler;
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
	readonly models?: readonly ModelOption[];
	/** Digests of model files that it has from the start. */
	readonly blobs?: readonly string[];
	/** Its own version, 0.35.0 if none is given. */
	readonly version?: string;
	/** Whether cloud models are off (OLLAMA_NO_CLOUD). */
	readonly noCloud?: boolean;
	/** Whether ollama.com and registries cannot be reached. */
	readonly isOffline?: boolean;
	/** How long it takes to load a model; 0 if it is not given. */
	readonly loadMs?: number;
	/** OLLAMA_NUM_PARALLEL. Without it a model serves all at once, where Ollama's own default is 1. */
	readonly parallel?: number;
	/** OLLAMA_MAX_LOADED_MODELS, 3 if it is not given. */
	readonly maxLoadedModels?: number;
	/** OLLAMA_MAX_QUEUE, 512 if it is not given. */
	readonly maxQueue?: number;
	/** OLLAMA_KEEP_ALIVE, 5 minutes if it is not given. */
	readonly keepAliveMs?: number;
	/** Silence before the first token: the prompt is read. */
	readonly firstTokenMs?: number;
	readonly tokenIntervalMs?: number;
	/** Asked for each call; what it returns goes wrong. */
	readonly misbehave?: (call: Call) => Misbehaviour | undefined;
	/** Whether to keep a record of calls and bodies; off where there are millions. */
	readonly remember?: boolean;
}

const emptyBody = Buffer.alloc(0);

/** Starts a stand-in on loopback, or on a Unix socket. */
export async function startStandIn(
	options: StandInOptions = {},
): Promise<StandIn> {
	const { host = "127.0.0.1", remember = true } = options;
	const scheduler = createScheduler({
		parallel: options.parallel ?? Number.POSITIVE_INFINITY,
		maxLoadedModels: options.maxLoadedModels ?? 3,
		maxQueue: options.maxQueue ?? 512,
		keepAliveMs: options.keepAliveMs ?? 5 * 60_000,
		loadMs: options.loadMs ?? 0,
	});
	const ollama: Host = {
		models: createModels(
			options.models ?? ["qwen3:8b", "llama3.2:3b", "nomic-embed-text:latest"],
		),
		scheduler,
		pace: {
			firstTokenMs: options.firstTokenMs ?? 0,
			tokenIntervalMs: options.tokenIntervalMs ?? 0,
		},
		version: options.version ?? "0.35.0",
		noCloud: options.noCloud ?? false,
		isOffline: options.isOffline ?? false,
		blobs: new Set(options.blobs),
	};
	const calls: Call[] = [];
	const events: StandIn["events"] = new EventEmitter();
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
		const over = new AbortController();
		res.once("close", () => {
			activeCalls -= 1;
			call.finished = res.writableFinished;
			over.abort();
			if (call.finished) return;
			call.abortedAtMs = performance.now();
			events.emit("abort", call);
		});
		events.emit("call", call);

		const misbehaviour = options.misbehave?.(call);
		if (misbehaviour === "reset") return void req.socket.resetAndDestroy();
		if (misbehaviour === "never-read") return;
		const { headers, turned } = admit(
			call.method,
			req.headers,
			isLoopbackAddress(host),
		);
		for (const [name, value] of Object.entries(headers))
			res.setHeader(name, value);
		if (turned !== undefined) return turnAway(res, turned);
		const path = plainPath(call.method, call.target);
		if (typeof path === "object") return turnAway(res, path);

		const isBlob = call.method === "POST" && path.startsWith("/api/blobs/");
		if (isBlob && ollama.blobs.has(digestIn(path))) {
			// It has the file, and does not look at this one (server/routes.go:CreateBlobHandler).
			events.emit("body", call);
			return turnAway(res, { status: 200 });
		}
		const hash = isBlob ? createHash("sha256") : undefined;
		if (!(await readAll(req, call, hash))) return;
		if (hash !== undefined && !keepBlob(path, hash, res)) return;
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
		await answer(
			ollama,
			{
				method: call.method,
				path,
				contentType: req.headers["content-type"] ?? "",
				body: call.unpacked ?? call.body,
				signal: over.signal,
				fault: midStream.find((fault) => fault === misbehaviour),
			},
			res,
		);
	}

	function keepBlob(path: string, hash: Hash, res: ServerResponse): boolean {
		const digest = `sha256:${hash.digest("hex")}`;
		const wanted = digestIn(path);
		if (!isDigest(wanted)) {
			json(res, 400, { error: "invalid digest format" });
			return false;
		}
		// By its own digest, even where it was announced by another.
		ollama.blobs.add(digest);
		if (digest !== wanted)
			json(res, 400, {
				error: `digest mismatch, expected "${wanted}", got "${digest}"`,
			});
		return digest === wanted;
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
		scheduler,
		close: () =>
			new Promise((resolve) => {
				scheduler.close();
				server.close(() => resolve());
				server.closeAllConnections();
			}),
	};
}

/** Reads a body to its end; false if it does not come to one. */
async function readAll(
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

function turnAway(
	res: ServerResponse,
	{ status, headers = {}, body }: Turned,
): void {
	for (const [name, value] of Object.entries(headers))
		res.setHeader(name, value);
	if (body !== undefined) {
		send(res, status, headers["content-type"] ?? "text/plain", body);
		return;
	}
	if (status !== 204) res.setHeader("content-length", 0);
	res.writeHead(status).end();
}

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

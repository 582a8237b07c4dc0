import type { ServerResponse } from "node:http";
import { matchRoute } from "../routes.ts";
import { type Body, readKeepAlive, WrongValue } from "./body.ts";
import { type Asked, bodyOf, type Host, json, send } from "./call.ts";
import { Failed, writeFailure } from "./failed.ts";
import {
	answerTokens,
	generate,
	optionsOf,
	pause,
	runnerOf,
} from "./generation.ts";
import { manage } from "./managing.ts";
import {
	Cloud,
	describeModel,
	displayName,
	type Model,
	modelDetails,
	openaiModel,
	type Words,
} from "./models.ts";
import { replyShapeOf } from "./replies.ts";
import { Gone, QueueFull } from "./scheduler.ts";

/** Answers a call as its handler in server/routes.go does. */
export async function answer(
	host: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	try {
		await handle(host, asked, res);
	} catch (error) {
		if (error instanceof Gone || asked.signal.aborted) return;
		const failed = asFailed(error, host, asked);
		if (res.headersSent) {
			res.end(`${JSON.stringify({ error: failed.message })}\n`);
			return;
		}
		const { contentType, body } =
			error instanceof Cloud
				? {
						// Of every family's calls alike (server/cloud_proxy.go).
						contentType: "application/json; charset=utf-8",
						body: JSON.stringify({ error: failed.message }),
					}
				: writeFailure(asked.path, failed);
		send(res, failed.status, contentType, body);
	}
}

function asFailed(error: unknown, { noCloud }: Host, { path }: Asked): Failed {
	if (error instanceof Failed) return error;
	if (error instanceof QueueFull) return new Failed(503, error.message);
	if (error instanceof WrongValue) return new Failed(500, error.message);
	if (error instanceof Cloud) {
		if (!noCloud) return new Failed(502, unreachable(path));
		const what =
			path === "/api/show" || path.startsWith("/v1/models/")
				? "remote model details are"
				: "remote model is";
		return new Failed(403, `ollama cloud is disabled: ${what} unavailable`);
	}
	throw error;
}

function unreachable(path: string): string {
	return `Post "https://ollama.com:443${path}?ts=${Math.floor(Date.now() / 1000)}": dial tcp: lookup ollama.com: no such host`;
}

async function handle(
	host: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const { method, path } = asked;
	const match = matchRoute(method, path);
	if (match.kind === "wrong-method") {
		res.setHeader("allow", match.allow.join(", "));
		return send(res, 405, "text/plain", "405 method not allowed");
	}
	if (method === "GET" || method === "HEAD") {
		const found = look(host, path);
		if (found !== undefined) return json(res, 200, found);
	}
	if (path === "/") return send(res, 200, text, "Ollama is running");
	if (/^\/v1\/models\/[^/]+$/.test(path) && method === "GET")
		return model(host, path, res);
	if (path === "/api/codex/_health")
		return send(res, 200, "application/json", '{"ok":true}');
	if (matchRoute(method, path).kind === "unknown")
		return send(res, 404, "text/plain", "404 page not found");
	if (replyShapeOf(path, false) !== undefined) return infer(host, asked, res);
	if (await manage(host, asked, res)) return;
	switch (path) {
		case "/api/show":
			return show(host, asked, res);
		case "/api/embed":
		case "/api/embeddings":
		case "/v1/embeddings":
			return embed(host, asked, res);
		case "/v1/responses/compact":
			return compact(host, asked, res);
		case "/v1/audio/transcriptions":
			return transcribe(asked, res);
		case "/api/me":
			// ollama.com cannot be asked.
			throw new Failed(503, "account unavailable");
		case "/api/experimental/web_search":
		case "/api/experimental/web_fetch":
			if (host.noCloud)
				throw new Failed(
					403,
					`ollama cloud is disabled: ${path.endsWith("search") ? "web search" : "web fetch"} is unavailable`,
				);
			if (host.isOffline)
				throw new Failed(502, unreachable(path.replace("/experimental", "")));
			return json(res, 200, { results: [] });
		// signout and its older form
		default:
			if (host.isOffline)
				throw new Failed(500, "there was an error signing out");
			return json(res, 200, {});
	}
}

const text = "text/plain; charset=utf-8";

function look(host: Host, path: string): object | undefined {
	switch (path) {
		case "/api/version":
			return { version: host.version };
		case "/api/tags":
			return { models: host.models.list().map(describeModel) };
		case "/api/ps":
			return { models: running(host) };
		case "/api/status":
			return {
				cloud: {
					disabled: host.noCloud,
					source: host.noCloud ? "env" : "none",
				},
			};
		case "/v1/models":
			return {
				object: "list",
				data: host.models.list().map(({ name }) => openaiModel(name)),
			};
		case "/api/experimental/model-recommendations":
			return { recommendations: [] };
		default:
			return undefined;
	}
}

function running({ scheduler }: Host): object[] {
	return scheduler.loaded().map((runner) => ({
		name: runner.name,
		model: runner.name,
		size: 5_225_388_164,
		digest: runner.file,
		details: modelDetails,
		expires_at: new Date(Math.min(runner.expiresAtMs, latestMs)).toISOString(),
		size_vram: 5_225_388_164,
		context_length: runner.contextLength,
	}));
}

/** When a model goes that is kept for good, as Go's longest duration has it. */
const latestMs = Date.UTC(2319, 0, 1);

function model({ models }: Host, path: string, res: ServerResponse): void {
	const name = path.slice("/v1/models/".length);
	models.find(name, {
		none: [400, "model is required"],
		missing: () => `model '${displayName(name)}' not found`,
	});
	json(res, 200, openaiModel(name));
}

/** How each call speaks of a model that is not there. */
const quoted: Words = {
	none: [404, "model '' not found"],
	missing: (asked) => `model '${asked}' not found`,
};
const required: Words = { ...quoted, none: [400, "model is required"] };
const pullFirst = (words: Words): Words => ({
	...words,
	missing: (asked) =>
		`model ${JSON.stringify(asked)} not found, try pulling it first`,
});
const wordsOf: Readonly<Record<string, Words>> = {
	"/api/generate": quoted,
	"/v1/completions": quoted,
	"/api/embed": pullFirst(quoted),
	"/v1/embeddings": pullFirst(quoted),
	"/api/embeddings": pullFirst(required),
};

/** What the translators of the other APIs ask of a body before Ollama's own handler sees it. */
function checkTranslated(path: string, body: Body): void {
	const refuse = (message: string) => {
		throw new Failed(400, message, "translator");
	};
	const isEmpty = (name: string) => {
		const list = body.get(name);
		return !Array.isArray(list) || list.length === 0;
	};
	switch (path) {
		case "/v1/chat/completions":
			if (isEmpty("messages")) refuse("[] is too short - 'messages'");
			return;
		case "/v1/messages":
			if (body.text("model") === "") refuse("model is required");
			if (!(Number(body.get("max_tokens")) > 0))
				refuse("max_tokens is required and must be positive");
			if (isEmpty("messages")) refuse("messages is required");
			return;
		case "/v1/responses":
		case "/v1/responses/compact":
			if (body.text("model") === "") refuse("model is required");
			if (body.get("input") === undefined) refuse("input is required");
	}
}

function keepAliveOf(body: Body): number | undefined {
	try {
		return readKeepAlive(body.get("keep_alive"));
	} catch (error) {
		if (error instanceof WrongValue) throw new Failed(400, error.message);
		throw error;
	}
}

async function infer(
	host: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const { path, signal } = asked;
	const startedAtMs = performance.now();
	const body = bodyOf(asked);
	// The other APIs have no keep_alive.
	const keepAliveMs = path.startsWith("/api/") ? keepAliveOf(body) : undefined;
	const name = body.text("model");
	if (path.startsWith("/v1/")) {
		host.models.refuseCloud(name);
		checkTranslated(path, body);
	}
	const found = host.models.find(name, wordsOf[path] ?? required);
	const isEmpty =
		path === "/api/generate"
			? body.text("prompt") === ""
			: path === "/api/chat" && !(body.get("messages") as unknown[])?.length;
	if (isEmpty && keepAliveMs === 0) {
		host.scheduler.unload(found.file);
		return json(res, 200, withoutWords(path, name, "unload"));
	}
	checkAbilities(path, body, found, name);
	const options = optionsOf(body);
	const runner = await runnerOf(
		host.scheduler,
		found,
		options,
		keepAliveMs,
		signal,
	);
	if (isEmpty) return json(res, 200, withoutWords(path, name, "load"));
	await generate(
		{
			...{ path, body, options, runner, signal, startedAtMs },
			...{ asked: name, bytes: asked.body },
			loadedAtMs: performance.now(),
			pace: host.pace,
			fault: asked.fault,
		},
		res,
	);
}

/** The reply to a call that only loads or unloads. */
function withoutWords(path: string, name: string, reason: string): object {
	return {
		model: name,
		created_at: new Date().toISOString(),
		...(path === "/api/generate"
			? { response: "" }
			: { message: { role: "assistant", content: "" } }),
		done: true,
		done_reason: reason,
	};
}

function checkAbilities(
	path: string,
	body: Body,
	{ capabilities, name }: Model,
	asked: string,
): void {
	const refuse = (message: string) => {
		throw new Failed(400, message);
	};
	const logprobs = body.get("top_logprobs") ?? 0;
	if (
		path.startsWith("/api/") &&
		!(Number(logprobs) >= 0 && Number(logprobs) <= 20)
	)
		refuse("top_logprobs must be between 0 and 20");
	if (!capabilities.includes("completion"))
		refuse(
			`${JSON.stringify(asked)} does not support ${path === "/api/generate" || path === "/v1/completions" ? "generate" : "chat"}`,
		);
	if (
		path.startsWith("/api/") &&
		(body.get("think") ?? false) !== false &&
		!capabilities.includes("thinking")
	)
		refuse(`${JSON.stringify(asked)} does not support thinking`);
	const tools = body.get("tools");
	if (
		Array.isArray(tools) &&
		tools.length > 0 &&
		!capabilities.includes("tools")
	)
		refuse(
			`registry.ollama.ai/library/${displayName(name)} does not support tools`,
		);
}

function transcribe({ contentType }: Asked, res: ServerResponse): void {
	if (!contentType.startsWith("multipart/form-data"))
		throw new Failed(
			400,
			"failed to parse multipart form: request Content-Type isn't multipart/form-data",
			"translator",
		);
	json(res, 200, { text: answerTokens.slice(0, 8).join("") });
}

function show({ models }: Host, asked: Asked, res: ServerResponse): void {
	const body = bodyOf(asked);
	const found = models.find(body.text("model") || body.text("name"), {
		none: [400, "model is required"],
		missing: (name) => `model '${displayName(name)}' not found`,
	});
	json(res, 200, {
		license: "",
		details: modelDetails,
		model_info: {},
		capabilities: found.capabilities,
	});
}

async function embed(
	host: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const { path, signal } = asked;
	const startedAtMs = performance.now();
	const body = bodyOf(asked);
	const keepAliveMs = path.startsWith("/api/") ? keepAliveOf(body) : undefined;
	const input = body.get("input");
	const name = body.text("model");
	if (path === "/v1/embeddings") {
		host.models.refuseCloud(name);
		if (input === undefined || (Array.isArray(input) && input.length === 0))
			throw new Failed(400, "invalid input", "translator");
	}
	const model = host.models.find(name, wordsOf[path] ?? quoted);
	if (path === "/api/embed" && ["number", "boolean"].includes(typeof input))
		throw new Failed(400, "invalid input type");
	const runner = await runnerOf(
		host.scheduler,
		model,
		optionsOf(body),
		keepAliveMs,
		signal,
	);
	const loadedAtMs = performance.now();
	const texts =
		path === "/api/embeddings"
			? [body.text("prompt")].filter((prompt) => prompt !== "")
			: [input ?? []]
					.flat()
					.filter((one) => one !== "" || path === "/v1/embeddings");
	if (texts.length > 0 && !model.capabilities.includes("embedding"))
		// Ollama starts the runner of such a model without what makes embeddings.
		throw new Failed(
			path === "/api/embeddings" ? 500 : 501,
			"This server does not support embeddings. Start it with `--embeddings`",
		);
	const release = await runner.slot(signal);
	try {
		await pause(host.pace.firstTokenMs, signal);
	} finally {
		release();
	}
	const vector = Array.from({ length: 8 }, (_, i) => Math.sin(i + 1));
	const promptTokens = 5 * texts.length;
	switch (path) {
		case "/api/embed":
			return json(res, 200, {
				model: name,
				embeddings: texts.map(() => vector),
				...(texts.length === 0
					? {}
					: {
							total_duration: ns(performance.now() - startedAtMs),
							load_duration: ns(loadedAtMs - startedAtMs),
							prompt_eval_count: promptTokens,
						}),
			});
		case "/api/embeddings":
			return json(res, 200, { embedding: texts.length === 0 ? [] : vector });
		default:
			return json(res, 200, {
				object: "list",
				data: texts.map((_, index) => ({
					object: "embedding",
					embedding: vector,
					index,
				})),
				model: name,
				usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
			});
	}
}

/** Milliseconds as Ollama writes a duration. */
function ns(durationMs: number): number {
	return Math.max(1, Math.round(durationMs * 1e6));
}

async function compact(
	host: Host,
	asked: Asked,
	res: ServerResponse,
): Promise<void> {
	const body = bodyOf(asked);
	const name = body.text("model");
	host.models.refuseCloud(name);
	checkTranslated(asked.path, body);
	const model = host.models.find(name, required);
	if (!model.capabilities.includes("tools"))
		throw new Failed(
			400,
			`registry.ollama.ai/library/${displayName(model.name)} does not support tools`,
		);
	const runner = await runnerOf(
		host.scheduler,
		model,
		optionsOf(body),
		undefined,
		asked.signal,
	);
	const release = await runner.slot(asked.signal);
	try {
		await pause(host.pace.firstTokenMs, asked.signal);
	} finally {
		release();
	}
	json(res, 200, {
		id: "resp_compact_1",
		object: "response.compaction",
		created_at: Math.floor(Date.now() / 1000),
		output: [{ type: "compaction", encrypted_content: '{"summary":"a"}' }],
		usage: {
			input_tokens: 5,
			input_tokens_details: { cached_tokens: 0 },
			output_tokens: 3,
			output_tokens_details: { reasoning_tokens: 0 },
			total_tokens: 8,
		},
	});
}

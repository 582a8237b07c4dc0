import type { ServerResponse } from "node:http";
import { matchRoute } from "../routes.ts";
import { type Asked, bodyOf, type Host, json, send } from "./call.ts";
import { embed } from "./embeddings.ts";
import { Failed, writeFailure } from "./failed.ts";
import { answerTokens } from "./generation.ts";
import { compact, infer } from "./inference.ts";
import { manage } from "./managing.ts";
import {
	Cloud,
	describeModel,
	displayName,
	modelDetails,
	openaiModel,
} from "./models.ts";
import { replyShapeOf } from "./replies.ts";
import { Gone, QueueFull } from "./scheduler.ts";
import { WrongValue } from "./values.ts";

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

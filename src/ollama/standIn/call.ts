import type { ServerResponse } from "node:http";
import { type Body, readBody, Unreadable } from "./body.ts";
import { Failed } from "./failed.ts";
import type { MidStream, Pace } from "./generation.ts";
import type { Models } from "./models.ts";
import type { Scheduler } from "./scheduler.ts";

/** What the stand-in is, as far as a handler needs it. */
export interface Host {
	readonly models: Models;
	readonly scheduler: Scheduler;
	readonly pace: Pace;
	readonly version: string;
	/** Whether cloud models are off (OLLAMA_NO_CLOUD). */
	readonly noCloud: boolean;
	/** Whether ollama.com and registries cannot be reached. */
	readonly isOffline: boolean;
	/** Digests of the model files that it has. */
	readonly blobs: Set<string>;
}

/** A call whose body has arrived. */
export interface Asked {
	readonly method: string;
	readonly path: string;
	readonly contentType: string;
	/** Unpacked, where Ollama unpacks it. */
	readonly body: Buffer;
	/** Aborted when the call is over: answered, or its client gone. */
	readonly signal: AbortSignal;
	readonly fault: MidStream | undefined;
}

/** The Go types that bodies become, as errors name them. */
const types: Readonly<Record<string, string>> = {
	"/api/generate": "api.GenerateRequest",
	"/api/chat": "api.ChatRequest",
	"/api/embed": "api.EmbedRequest",
	"/api/embeddings": "api.EmbeddingRequest",
	"/api/show": "api.ShowRequest",
	"/api/pull": "api.PullRequest",
	"/api/push": "api.PushRequest",
	"/api/create": "api.CreateRequest",
	"/api/copy": "api.CopyRequest",
	"/api/delete": "api.DeleteRequest",
	"/v1/chat/completions": "openai.ChatCompletionRequest",
	"/v1/completions": "openai.CompletionRequest",
	"/v1/embeddings": "openai.EmbedRequest",
	"/v1/messages": "anthropic.MessagesRequest",
};

/** A call's body, or the refusal of one that cannot be read. */
export function bodyOf({ path, body }: Asked): Body {
	try {
		return readBody(body, types[path] ?? "map[string]json.RawMessage");
	} catch (error) {
		if (!(error instanceof Unreadable)) throw error;
		const isOwn = path.startsWith("/api/") || path.startsWith("/v1/responses");
		throw new Failed(
			400,
			error.message === "EOF" && isOwn ? "missing request body" : error.message,
			path.startsWith("/api/") ? "handler" : "translator",
		);
	}
}

/** Answers with JSON, of the type that this path has. */
export function json(res: ServerResponse, status: number, value: object): void {
	send(res, status, "application/json; charset=utf-8", JSON.stringify(value));
}

/** Answers with a body of a known length. */
export function send(
	res: ServerResponse,
	status: number,
	contentType: string,
	body: string,
): void {
	res.writeHead(status, {
		"content-type": contentType,
		"content-length": Buffer.byteLength(body),
	});
	res.end(body);
}

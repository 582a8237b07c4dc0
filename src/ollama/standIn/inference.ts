import type { ServerResponse } from "node:http";
import type { Body } from "./body.ts";
import { type Asked, bodyOf, type Host, json } from "./call.ts";
import { Failed } from "./failed.ts";
import { generate, optionsOf, pause, runnerOf } from "./generation.ts";
import { displayName, type Model, required, wordsOf } from "./models.ts";
import { readKeepAlive, WrongValue } from "./values.ts";

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

/** For how long a request wants its model to stay. */
export function keepAliveOf(body: Body): number | undefined {
	try {
		return readKeepAlive(body.get("keep_alive"));
	} catch (error) {
		if (error instanceof WrongValue) throw new Failed(400, error.message);
		throw error;
	}
}

/** The calls that make text. */
export async function infer(
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
			path,
			body,
			options,
			runner,
			signal,
			startedAtMs,
			asked: name,
			bytes: asked.body,
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

/** Sums a conversation up. */
export async function compact(
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

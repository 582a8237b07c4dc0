import type { ServerResponse } from "node:http";
import { type Asked, bodyOf, type Host, json } from "./call.ts";
import { Failed } from "./failed.ts";
import { optionsOf, pause, runnerOf } from "./generation.ts";
import { keepAliveOf } from "./inference.ts";
import { quoted, wordsOf } from "./models.ts";

/** The calls that make embeddings. */
export async function embed(
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

import { errorBody } from "../errors.ts";
import { openaiChat, openaiCompletion } from "./openAiReplies.ts";
import {
	cachedTokens,
	createdAt,
	event,
	type Generation,
	line,
	message,
	promptTokens,
	type ReplyShape,
	reason,
	text,
} from "./replyShape.ts";

function counts(generation: Generation) {
	const { startedAtMs, loadedAtMs, tokens } = generation;
	const ns = (durationMs: number) => Math.max(1, Math.round(durationMs * 1e6));
	const workedMs = performance.now() - loadedAtMs;
	return {
		total_duration: ns(performance.now() - startedAtMs),
		load_duration: ns(loadedAtMs - startedAtMs),
		prompt_eval_count: promptTokens,
		prompt_eval_cached_count: cachedTokens(generation),
		prompt_eval_duration: ns(workedMs / 10),
		eval_count: tokens.length,
		eval_duration: ns(workedMs * 0.8),
	};
}

const head = ({ model }: Generation) => ({ model, created_at: createdAt() });
const ended = (generation: Generation) => ({
	done: true,
	done_reason: reason(generation),
});
const finished = (generation: Generation) => ({
	...ended(generation),
	...counts(generation),
});

const nativeError = () =>
	`${errorBody("native", 500, "an error was encountered while running the model: unexpected EOF")}\n`;

const generate: ReplyShape = {
	contentType: "application/x-ndjson",
	wholeContentType: "application/json; charset=utf-8",
	token: (generation, response) =>
		line({ ...head(generation), response, done: false }),
	end: (generation) =>
		line({
			...head(generation),
			response: "",
			...ended(generation),
			context: [1, 4093, 198],
			...counts(generation),
		}),
	died: nativeError,
	whole: (generation) => ({
		...head(generation),
		response: text(generation),
		...ended(generation),
		context: [1, 4093, 198],
		...counts(generation),
	}),
};

const chat: ReplyShape = {
	contentType: "application/x-ndjson",
	wholeContentType: "application/json; charset=utf-8",
	token: (generation, token) =>
		line({ ...head(generation), ...message(token), done: false }),
	end: (generation) =>
		line({ ...head(generation), ...message(""), ...finished(generation) }),
	died: nativeError,
	whole: (generation) => ({
		...head(generation),
		...message(text(generation)),
		...finished(generation),
	}),
};

const anthropicMessage = (generation: Generation, content: unknown[]) => ({
	id: "msg_1",
	type: "message",
	role: "assistant",
	model: generation.model,
	content,
});

/** Here alone the tokens that were read before are not part of the others. */
const messagesUsage = (generation: Generation) => ({
	input_tokens: promptTokens - cachedTokens(generation),
	cache_read_input_tokens: cachedTokens(generation),
	output_tokens: generation.tokens.length,
});

const messages: ReplyShape = {
	contentType: "text/event-stream",
	wholeContentType: "application/json",
	headers: { "cache-control": "no-cache" },
	begin: (generation) =>
		event("message_start", {
			message: {
				...anthropicMessage(generation, []),
				// An estimate; what was counted comes last.
				usage: { input_tokens: 1, output_tokens: 0 },
			},
		}) +
		event("content_block_start", {
			index: 0,
			content_block: { type: "text", text: "" },
		}),
	token: (_generation, token) =>
		event("content_block_delta", {
			index: 0,
			delta: { type: "text_delta", text: token },
		}),
	end: (generation) =>
		event("content_block_stop", { index: 0 }) +
		event("message_delta", {
			delta: { stop_reason: generation.isCut ? "max_tokens" : "end_turn" },
			usage: messagesUsage(generation),
		}) +
		event("message_stop", {}),
	died: () => "",
	whole: (generation) => ({
		...anthropicMessage(generation, [{ type: "text", text: text(generation) }]),
		stop_reason: generation.isCut ? "max_tokens" : "end_turn",
		usage: messagesUsage(generation),
	}),
};

const responseOf = (
	generation: Generation,
	status: string,
	output: unknown[],
) => ({
	id: "resp_1",
	object: "response",
	created_at: Math.floor(Date.now() / 1000),
	completed_at: status === "completed" ? Math.floor(Date.now() / 1000) : null,
	status,
	incomplete_details: null,
	model: generation.model,
	previous_response_id: null,
	instructions: generation.request.instructions ?? null,
	output,
	error: null,
	tools: generation.request.tools ?? [],
	tool_choice: "auto",
	truncation: "disabled",
	parallel_tool_calls: true,
	text: { format: { type: "text" } },
	top_p: 1,
	presence_penalty: 0,
	frequency_penalty: 0,
	top_logprobs: 0,
	temperature: 1,
	reasoning: null,
	usage:
		status === "completed"
			? {
					input_tokens: promptTokens,
					output_tokens: generation.tokens.length,
					total_tokens: promptTokens + generation.tokens.length,
					input_tokens_details: { cached_tokens: cachedTokens(generation) },
					output_tokens_details: { reasoning_tokens: 0 },
				}
			: null,
	max_output_tokens: generation.isCut ? generation.tokens.length : null,
	max_tool_calls: null,
	store: false,
	background: false,
	service_tier: "default",
	metadata: {},
	safety_identifier: null,
	prompt_cache_key: null,
});
const outputPart = (content: string) => ({
	type: "output_text",
	text: content,
	annotations: [],
	logprobs: [],
});
const outputMessage = (status: string, content: unknown[]) => ({
	id: "msg_1",
	type: "message",
	status,
	role: "assistant",
	content,
});
const outputText = (generation: Generation) => [
	outputMessage("completed", [outputPart(text(generation))]),
];

/** Go writes a map's keys in their order: `type` is the last of an event's. */
function sorted(value: unknown): unknown {
	if (Array.isArray(value)) return value.map(sorted);
	if (typeof value !== "object" || value === null) return value;
	return Object.fromEntries(
		Object.entries(value)
			.sort(([a], [b]) => (a < b ? -1 : 1))
			.map(([name, inner]) => [name, sorted(inner)]),
	);
}
const responseEvent = (type: string, number: number, value: object) =>
	`event: ${type}\ndata: ${JSON.stringify(sorted({ ...value, type, sequence_number: number }))}\n\n`;
const inPart = { item_id: "msg_1", output_index: 0, content_index: 0 };

const responses: ReplyShape = {
	contentType: "text/event-stream",
	wholeContentType: "application/json",
	headers: { "cache-control": "no-cache" },
	begin: (generation) => {
		const response = responseOf(generation, "in_progress", []);
		return (
			responseEvent("response.created", 0, { response }) +
			responseEvent("response.in_progress", 1, { response }) +
			responseEvent("response.output_item.added", 2, {
				output_index: 0,
				item: outputMessage("in_progress", []),
			}) +
			responseEvent("response.content_part.added", 3, {
				...inPart,
				part: outputPart(""),
			})
		);
	},
	token: (_generation, delta, index) =>
		responseEvent("response.output_text.delta", index + 4, {
			...inPart,
			delta,
			logprobs: [],
		}),
	end: (generation) => {
		const number = generation.tokens.length + 4;
		const [item] = outputText(generation);
		return (
			responseEvent("response.output_text.done", number, {
				...inPart,
				text: text(generation),
				logprobs: [],
			}) +
			responseEvent("response.content_part.done", number + 1, {
				...inPart,
				part: outputPart(text(generation)),
			}) +
			responseEvent("response.output_item.done", number + 2, {
				output_index: 0,
				item,
			}) +
			responseEvent("response.completed", number + 3, {
				response: responseOf(generation, "completed", outputText(generation)),
			})
		);
	},
	died: () => "",
	whole: (generation) =>
		responseOf(generation, "completed", outputText(generation)),
};

/** The shape of a generating call's reply; `undefined` for a path that generates nothing. */
export function replyShapeOf(
	path: string,
	includeUsage: boolean,
): ReplyShape | undefined {
	switch (path) {
		case "/api/generate":
			return generate;
		case "/api/chat":
			return chat;
		case "/v1/chat/completions":
			return openaiChat(includeUsage);
		case "/v1/completions":
			return openaiCompletion(includeUsage);
		case "/v1/messages":
			return messages;
		case "/v1/responses":
			return responses;
		default:
			return undefined;
	}
}

import { errorBody } from "./errors.ts";

/** What a call asks the stand-in to generate. */
export interface Generation {
	readonly model: string;
	readonly tokens: readonly string[];
	readonly startedAtMs: number;
	/** The request's body. */
	readonly request: Readonly<Record<string, unknown>>;
}

/** How one kind of call is answered: what surrounds each token, and the whole when it does not stream. */
export interface ReplyShape {
	readonly contentType: string;
	begin?(generation: Generation): string;
	token(generation: Generation, token: string, index: number): string;
	end(generation: Generation): string;
	/** What is said of a runner that died in the middle; the stream ends cleanly behind it. */
	died(generation: Generation): string;
	whole(generation: Generation): unknown;
}

const promptTokens = 26;

function counts(generation: Generation) {
	const totalNs = Math.round(
		(performance.now() - generation.startedAtMs) * 1e6,
	);
	return {
		total_duration: totalNs,
		load_duration: Math.round(totalNs / 10),
		prompt_eval_count: promptTokens,
		prompt_eval_cached_count: 0,
		prompt_eval_duration: Math.round(totalNs / 10),
		eval_count: generation.tokens.length,
		eval_duration: Math.round(totalNs * 0.8),
	};
}

const line = (value: unknown) => `${JSON.stringify(value)}\n`;
const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
const event = (type: string, value: object) =>
	`event: ${type}\ndata: ${JSON.stringify({ type, ...value })}\n\n`;
const createdAt = () => new Date().toISOString();
const text = ({ tokens }: Generation) => tokens.join("");

const head = ({ model }: Generation) => ({ model, created_at: createdAt() });
const finished = (generation: Generation) => ({
	done: true,
	done_reason: "stop",
	...counts(generation),
});

const nativeError = () =>
	`${errorBody("native", 500, "an error was encountered while running the model: unexpected EOF")}\n`;

const generate: ReplyShape = {
	contentType: "application/x-ndjson",
	token: (generation, response) =>
		line({ ...head(generation), response, done: false }),
	end: (generation) =>
		line({ ...head(generation), response: "", ...finished(generation) }),
	died: nativeError,
	whole: (generation) => ({
		...head(generation),
		response: text(generation),
		...finished(generation),
	}),
};

const message = (content: string) => ({
	message: { role: "assistant", content },
});

const chat: ReplyShape = {
	contentType: "application/x-ndjson",
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

const openaiUsage = ({ tokens }: Generation) => ({
	prompt_tokens: promptTokens,
	prompt_tokens_details: { cached_tokens: 0 },
	completion_tokens: tokens.length,
	total_tokens: promptTokens + tokens.length,
});

const chunkHead = ({ model }: Generation) => ({
	id: "chatcmpl-1",
	object: "chat.completion.chunk",
	created: Math.floor(Date.now() / 1000),
	model,
	system_fingerprint: "fp_ollama",
});

function openaiChat(includeUsage: boolean): ReplyShape {
	const choose = (delta: object, reason: string | null) => [
		{ index: 0, delta, finish_reason: reason },
	];
	return {
		contentType: "text/event-stream",
		token: (generation, content, index) =>
			data({
				...chunkHead(generation),
				choices: choose(
					index === 0 ? { role: "assistant", content } : { content },
					null,
				),
			}),
		end: (generation) =>
			data({ ...chunkHead(generation), choices: choose({}, "stop") }) +
			(includeUsage
				? data({
						...chunkHead(generation),
						choices: [],
						usage: openaiUsage(generation),
					})
				: "") +
			"data: [DONE]\n\n",
		// A runner that died: a last chunk of no model, and a clean end without a word.
		died: (generation) =>
			data({
				...chunkHead({ ...generation, model: "" }),
				choices: choose({}, "stop"),
			}),
		whole: (generation) => ({
			...chunkHead(generation),
			object: "chat.completion",
			choices: [
				{ index: 0, ...message(text(generation)), finish_reason: "stop" },
			],
			usage: openaiUsage(generation),
		}),
	};
}

function openaiCompletion(includeUsage: boolean): ReplyShape {
	const base = (generation: Generation) => ({
		...chunkHead(generation),
		id: "cmpl-1",
		object: "text_completion",
	});
	const choose = (token: string, reason: string | null) => [
		{ text: token, index: 0, finish_reason: reason },
	];
	const noUsage = includeUsage
		? { usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 } }
		: {};
	return {
		contentType: "text/event-stream",
		token: (generation, token) =>
			data({ ...base(generation), choices: choose(token, null), ...noUsage }),
		end: (generation) =>
			data({ ...base(generation), choices: choose("", "stop"), ...noUsage }) +
			(includeUsage
				? data({
						...base(generation),
						choices: [],
						usage: openaiUsage(generation),
					})
				: "") +
			"data: [DONE]\n\n",
		died: (generation) =>
			data({
				...base({ ...generation, model: "" }),
				choices: choose("", null),
				...noUsage,
			}),
		whole: (generation) => ({
			...base(generation),
			choices: choose(text(generation), "stop"),
			usage: openaiUsage(generation),
		}),
	};
}

const anthropicMessage = (generation: Generation, content: unknown[]) => ({
	id: "msg_1",
	type: "message",
	role: "assistant",
	model: generation.model,
	content,
});

const messages: ReplyShape = {
	contentType: "text/event-stream",
	begin: (generation) =>
		event("message_start", {
			message: {
				...anthropicMessage(generation, []),
				stop_reason: null,
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
	end: ({ tokens }) =>
		event("content_block_stop", { index: 0 }) +
		event("message_delta", {
			delta: { stop_reason: "end_turn" },
			usage: {
				input_tokens: promptTokens,
				cache_read_input_tokens: 0,
				output_tokens: tokens.length,
			},
		}) +
		event("message_stop", {}),
	died: () => "",
	whole: (generation) => ({
		...anthropicMessage(generation, [{ type: "text", text: text(generation) }]),
		stop_reason: "end_turn",
		usage: {
			input_tokens: promptTokens,
			cache_read_input_tokens: 0,
			output_tokens: generation.tokens.length,
		},
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
	parallel_tool_calls: true,
	text: { format: { type: "text" } },
	temperature: 1,
	usage:
		status === "completed"
			? {
					input_tokens: promptTokens,
					input_tokens_details: { cached_tokens: 0 },
					output_tokens: generation.tokens.length,
					output_tokens_details: { reasoning_tokens: 0 },
					total_tokens: promptTokens + generation.tokens.length,
				}
			: null,
	store: false,
	metadata: {},
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

/** A model's entry in `/api/tags`. */
export function describeModel(name: string) {
	return {
		name,
		model: name,
		modified_at: "2026-08-21T09:00:00Z",
		size: 5_225_388_164,
		digest: "500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41",
		details: {
			parent_model: "",
			format: "gguf",
			family: "qwen3",
			families: ["qwen3"],
			parameter_size: "8.2B",
			quantization_level: "Q4_K_M",
		},
	};
}

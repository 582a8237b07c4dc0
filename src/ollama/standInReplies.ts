/** What a call asks the stand-in to generate. */
export interface Generation {
	readonly model: string;
	readonly tokens: readonly string[];
	readonly startedAtMs: number;
}

/** How one kind of call is answered: what surrounds each token, and the whole when it does not stream. */
export interface ReplyShape {
	readonly contentType: string;
	begin?(generation: Generation): string;
	token(generation: Generation, token: string, index: number): string;
	end(generation: Generation): string;
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

const generate: ReplyShape = {
	contentType: "application/x-ndjson",
	token: (generation, response) =>
		line({ ...head(generation), response, done: false }),
	end: (generation) =>
		line({ ...head(generation), response: "", ...finished(generation) }),
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
	whole: (generation) => ({
		...head(generation),
		...message(text(generation)),
		...finished(generation),
	}),
};

const openaiUsage = ({ tokens }: Generation) => ({
	prompt_tokens: promptTokens,
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
	return {
		contentType: "text/event-stream",
		token: (generation, content) =>
			data({
				...chunkHead(generation),
				choices: [
					{
						index: 0,
						delta: { role: "assistant", content },
						finish_reason: null,
					},
				],
			}),
		end: (generation) =>
			data({
				...chunkHead(generation),
				choices: [
					{
						index: 0,
						delta: { role: "assistant", content: "" },
						finish_reason: "stop",
					},
				],
			}) +
			(includeUsage
				? data({
						...chunkHead(generation),
						choices: [],
						usage: openaiUsage(generation),
					})
				: "") +
			"data: [DONE]\n\n",
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
	return {
		contentType: "text/event-stream",
		token: (generation, token) =>
			data({
				...base(generation),
				choices: [{ text: token, index: 0, finish_reason: null }],
			}),
		end: (generation) =>
			data({
				...base(generation),
				choices: [{ text: "", index: 0, finish_reason: "stop" }],
			}) +
			(includeUsage
				? data({
						...base(generation),
						choices: [],
						usage: openaiUsage(generation),
					})
				: "") +
			"data: [DONE]\n\n",
		whole: (generation) => ({
			...base(generation),
			choices: [{ text: text(generation), index: 0, finish_reason: "stop" }],
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
				usage: { input_tokens: 0, output_tokens: 0 },
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
			usage: { input_tokens: promptTokens, output_tokens: tokens.length },
		}) +
		event("message_stop", {}),
	whole: (generation) => ({
		...anthropicMessage(generation, [{ type: "text", text: text(generation) }]),
		stop_reason: "end_turn",
		usage: {
			input_tokens: promptTokens,
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
	status,
	model: generation.model,
	output,
	usage: {
		input_tokens: promptTokens,
		output_tokens: generation.tokens.length,
		total_tokens: promptTokens + generation.tokens.length,
	},
});
const outputText = (generation: Generation) => [
	{
		type: "message",
		id: "msg_1",
		role: "assistant",
		status: "completed",
		content: [{ type: "output_text", text: text(generation), annotations: [] }],
	},
];

const responses: ReplyShape = {
	contentType: "text/event-stream",
	begin: (generation) =>
		event("response.created", {
			sequence_number: 0,
			response: responseOf(generation, "in_progress", []),
		}),
	token: (_generation, delta, index) =>
		event("response.output_text.delta", {
			sequence_number: index + 1,
			item_id: "msg_1",
			output_index: 0,
			content_index: 0,
			delta,
		}),
	end: (generation) =>
		event("response.completed", {
			sequence_number: generation.tokens.length + 1,
			response: responseOf(generation, "completed", outputText(generation)),
		}),
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

import {
	cachedTokens,
	data,
	type Generation,
	message,
	promptTokens,
	type ReplyShape,
	reason,
	text,
} from "./replyShape.ts";

const openaiUsage = (generation: Generation) => ({
	prompt_tokens: promptTokens,
	prompt_tokens_details: { cached_tokens: cachedTokens(generation) },
	completion_tokens: generation.tokens.length,
	total_tokens: promptTokens + generation.tokens.length,
});

const chunkHead = ({ model }: Generation) => ({
	id: "chatcmpl-1",
	object: "chat.completion.chunk",
	created: Math.floor(Date.now() / 1000),
	model,
	system_fingerprint: "fp_ollama",
});

export function openaiChat(includeUsage: boolean): ReplyShape {
	const choose = (delta: object, reason: string | null) => [
		{ index: 0, delta, finish_reason: reason },
	];
	return {
		contentType: "text/event-stream",
		wholeContentType: "application/json",
		token: (generation, content, index) =>
			data({
				...chunkHead(generation),
				choices: choose(
					index === 0 ? { role: "assistant", content } : { content },
					null,
				),
			}),
		end: (generation) =>
			data({
				...chunkHead(generation),
				choices: choose({}, reason(generation)),
			}) +
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
				{
					index: 0,
					...message(text(generation)),
					finish_reason: reason(generation),
				},
			],
			usage: openaiUsage(generation),
		}),
	};
}

export function openaiCompletion(includeUsage: boolean): ReplyShape {
	const body = ({ model }: Generation, choices: unknown[]) => ({
		id: "cmpl-1",
		object: "text_completion",
		created: Math.floor(Date.now() / 1000),
		choices,
		model,
		system_fingerprint: "fp_ollama",
	});
	const choose = (token: string, why: string | null) => [
		{ text: token, index: 0, finish_reason: why },
	];
	const noUsage = includeUsage
		? { usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 } }
		: {};
	return {
		contentType: "text/event-stream",
		wholeContentType: "application/json",
		token: (generation, token) =>
			data({ ...body(generation, choose(token, null)), ...noUsage }),
		end: (generation) =>
			data({
				...body(generation, choose("", reason(generation))),
				...noUsage,
			}) +
			(includeUsage
				? data({ ...body(generation, []), usage: openaiUsage(generation) })
				: "") +
			"data: [DONE]\n\n",
		died: (generation) =>
			data({
				...body({ ...generation, model: "" }, choose("", null)),
				...noUsage,
			}),
		whole: (generation) => {
			const { choices, ...rest } = body(
				generation,
				choose(text(generation), reason(generation)),
			);
			return { ...rest, choices, usage: openaiUsage(generation) };
		},
	};
}

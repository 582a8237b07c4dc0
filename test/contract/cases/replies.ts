import type { Test } from "tap";
import type { Group, Ollama } from "../contract.ts";
import type { Reply } from "../server.ts";

/** Asks for three tokens of each family. */
export function bodyOf(path: string, tokens: number, more: object = {}) {
	const shared = { model: "smol", ...more };
	const messages = [{ role: "user", content: "Tell me a long story." }];
	switch (path) {
		case "/api/generate":
			return {
				...shared,
				prompt: "Tell me a long story.",
				options: { num_predict: tokens, seed: 1 },
			};
		case "/api/chat":
			return { ...shared, messages, options: { num_predict: tokens, seed: 1 } };
		case "/v1/completions":
			return {
				...{ ...shared, prompt: "Tell me a long story." },
				...{ max_tokens: tokens, seed: 1 },
			};
		case "/v1/responses":
			return {
				...{ ...shared, input: "Tell me a long story." },
				max_output_tokens: tokens,
			};
		default:
			return { ...shared, messages, max_tokens: tokens, seed: 1 };
	}
}

/** The calls that make text. */
export const inferencePaths = [
	...["/api/generate", "/api/chat", "/v1/chat/completions"],
	...["/v1/completions", "/v1/responses", "/v1/messages"],
];

interface Event {
	readonly name: string | undefined;
	// biome-ignore lint/suspicious/noExplicitAny: what a server sends is looked at member by member
	readonly data: any;
}

function eventsOf(text: string): Event[] {
	return text
		.trimEnd()
		.split("\n\n")
		.map((block) => {
			const data = /^data: (.*)$/m.exec(block)?.[1] ?? "";
			return {
				name: /^event: (.*)$/m.exec(block)?.[1],
				data: data === "[DONE]" ? data : JSON.parse(data),
			};
		});
}

function isStream(t: Test, reply: Reply, contentType: string): void {
	t.equal(reply.status, 200);
	t.equal(reply.headers["content-type"], contentType);
	t.equal(reply.headers["transfer-encoding"], "chunked");
	t.equal(reply.headers["content-length"], undefined);
	t.ok(reply.headers.date);
	t.ok(reply.isWhole);
}

const cut = 3;

/** The events of a stream of text that OpenAI's older API ends with `[DONE]`, which is taken off. */
async function openaiEvents(
	t: Test,
	ollama: Ollama,
	path: string,
	asksForUsage: boolean,
): Promise<Event[]> {
	const options = { stream_options: { include_usage: true } };
	const body = { stream: true, ...(asksForUsage ? options : {}) };
	const reply = await ollama.ask("POST", path, bodyOf(path, cut, body));
	isStream(t, reply, "text/event-stream");
	const events = eventsOf(reply.text);
	t.equal(events.pop()?.data, "[DONE]");
	return events;
}

const nativeCounts = (ollama: Ollama) => [
	...["total_duration", "load_duration", "prompt_eval_count"],
	...(ollama.has("cachedTokens") ? ["prompt_eval_cached_count"] : []),
	...["prompt_eval_duration", "eval_count", "eval_duration"],
];
const openaiCounts = (ollama: Ollama) => [
	"prompt_tokens",
	...(ollama.has("cachedTokens") ? ["prompt_tokens_details"] : []),
	...["completion_tokens", "total_tokens"],
];
const messagesCounts = (ollama: Ollama) => [
	"input_tokens",
	...(ollama.has("cachedTokens") ? ["cache_read_input_tokens"] : []),
	"output_tokens",
];

/** What replies look like: their heads, their events in their order, the usage that they tell. */
export const replies: Group = {
	cases: {
		"/api/generate streams lines, the last with the counts": async (
			t,
			ollama,
		) => {
			const reply = await ollama.ask(
				...["POST", "/api/generate"],
				bodyOf("/api/generate", cut),
			);
			isStream(t, reply, "application/x-ndjson");
			const lines = reply.text
				.trimEnd()
				.split("\n")
				.map((line) => JSON.parse(line));
			const last = lines.pop();
			t.equal(lines.length, cut);
			for (const line of lines) {
				t.strictSame(Object.keys(line), [
					...["model", "created_at", "response", "done"],
				]);
				t.match(line, { model: "smol", done: false });
			}
			t.strictSame(Object.keys(last), [
				...["model", "created_at", "response", "done", "done_reason"],
				...["context", ...nativeCounts(ollama)],
			]);
			t.match(last, {
				...{ response: "", done: true, done_reason: "length" },
				eval_count: cut,
			});
		},
		"/api/chat streams lines, the last with the counts": async (t, ollama) => {
			const reply = await ollama.ask(
				...["POST", "/api/chat"],
				bodyOf("/api/chat", cut, { model: "SMOL" }),
			);
			isStream(t, reply, "application/x-ndjson");
			const lines = reply.text
				.trimEnd()
				.split("\n")
				.map((line) => JSON.parse(line));
			const last = lines.pop();
			t.equal(lines.length, cut);
			for (const line of lines) {
				t.strictSame(Object.keys(line), [
					...["model", "created_at", "message", "done"],
				]);
				t.strictSame(Object.keys(line.message), ["role", "content"]);
				t.equal(line.model, "SMOL", "as it was asked for");
			}
			t.strictSame(Object.keys(last), [
				...["model", "created_at", "message", "done", "done_reason"],
				...nativeCounts(ollama),
			]);
			t.strictSame(last.message, { role: "assistant", content: "" });
		},
		"without a stream, Ollama's own API sends one piece of JSON": async (
			t,
			ollama,
		) => {
			for (const [path, words] of [
				["/api/generate", ["response"]],
				["/api/chat", ["message"]],
			] as const) {
				const { status, headers, text } = await ollama.ask(
					...["POST", path],
					bodyOf(path, cut, { stream: false }),
				);
				t.equal(status, 200);
				t.equal(headers["content-type"], "application/json; charset=utf-8");
				t.equal(headers["content-length"], String(Buffer.byteLength(text)));
				t.strictSame(Object.keys(JSON.parse(text)), [
					...["model", "created_at", ...words, "done", "done_reason"],
					...(path === "/api/generate" ? ["context"] : []),
					...nativeCounts(ollama),
				]);
			}
		},
		"/v1/chat/completions names the role once, and usage only where it is asked for":
			async (t, ollama) => {
				for (const asks of [true, false]) {
					const events = await openaiEvents(
						t,
						ollama,
						"/v1/chat/completions",
						asks,
					);
					t.ok(events.every(({ name }) => name === undefined));
					const chunks = events.map(({ data }) => data);
					const usage = asks ? chunks.pop() : undefined;
					t.strictSame(
						chunks.map(({ choices: [{ index, delta, finish_reason }] }) => [
							...[index, Object.keys(delta), finish_reason],
						]),
						[
							[0, ["role", "content"], null],
							...Array.from({ length: cut - 1 }, () => [0, ["content"], null]),
							[0, [], "length"],
						],
					);
					for (const chunk of chunks)
						t.strictSame(Object.keys(chunk), [
							...["id", "object", "created", "model", "system_fingerprint"],
							"choices",
						]);
					if (!asks) continue;
					t.strictSame(usage.choices, []);
					t.strictSame(Object.keys(usage.usage), openaiCounts(ollama));
					t.equal(usage.usage.completion_tokens, cut);
				}
			},
		"/v1/completions writes usage of nothing into each chunk before the last":
			async (t, ollama) => {
				for (const asks of [true, false]) {
					const events = await openaiEvents(t, ollama, "/v1/completions", asks);
					const chunks = events.map(({ data }) => data);
					const usage = asks ? chunks.pop() : undefined;
					t.strictSame(
						chunks.map(({ choices: [choice] }) => [
							...[Object.keys(choice), choice.finish_reason],
						]),
						Array.from({ length: cut + 1 }, (_, index) => [
							["text", "index", "finish_reason"],
							index === cut ? "length" : null,
						]),
					);
					for (const chunk of chunks) {
						t.strictSame(Object.keys(chunk), [
							...["id", "object", "created", "choices", "model"],
							...["system_fingerprint", ...(asks ? ["usage"] : [])],
						]);
						if (asks)
							t.strictSame(chunk.usage, {
								...{ prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
							});
					}
					if (!asks) continue;
					t.strictSame(usage.choices, []);
					t.strictSame(Object.keys(usage.usage), openaiCounts(ollama));
				}
			},
		"/v1/responses comes in nine kinds of events, each with its type last":
			async (t, ollama) => {
				const reply = await ollama.ask(
					...["POST", "/v1/responses"],
					bodyOf("/v1/responses", cut, {
						...{ stream: true, instructions: "be short" },
					}),
				);
				isStream(t, reply, "text/event-stream");
				t.equal(reply.headers["cache-control"], "no-cache");
				const events = eventsOf(reply.text);
				t.strictSame(
					events.map(({ name }) => name),
					[
						...["created", "in_progress"],
						...["output_item.added", "content_part.added"],
						...Array.from({ length: cut }, () => "output_text.delta"),
						...["output_text.done", "content_part.done"],
						...["output_item.done", "completed"],
					].map((name) => `response.${name}`),
				);
				for (const [number, { name, data }] of events.entries()) {
					t.equal(Object.keys(data).at(-1), "type");
					t.equal(data.type, name);
					t.equal(data.sequence_number, number);
				}
				const told = [events[0], events[1], events.at(-1)];
				for (const event of told) {
					const { response } = event?.data ?? {};
					t.equal(response.instructions, "be short");
					t.strictSame(Object.keys(response), responseMembers.toSorted());
				}
				t.equal(events[0]?.data.response.usage, null);
				const { status, usage } = events.at(-1)?.data.response ?? {};
				t.equal(status, "completed", "though it was cut");
				t.strictSame(Object.keys(usage), [
					...["input_tokens", "input_tokens_details", "output_tokens"],
					...["output_tokens_details", "total_tokens"],
				]);
				t.equal(usage.output_tokens, cut);
			},
		"/v1/messages begins with an estimate, and ends with the counts": async (
			t,
			ollama,
		) => {
			const reply = await ollama.ask(
				...["POST", "/v1/messages"],
				bodyOf("/v1/messages", cut, { stream: true }),
			);
			isStream(t, reply, "text/event-stream");
			t.equal(reply.headers["cache-control"], "no-cache");
			const events = eventsOf(reply.text);
			t.strictSame(
				events.map(({ name }) => name),
				[
					...["message_start", "content_block_start"],
					...Array.from({ length: cut }, () => "content_block_delta"),
					...["content_block_stop", "message_delta", "message_stop"],
				],
			);
			for (const { name, data } of events) {
				t.equal(Object.keys(data)[0], "type");
				t.equal(data.type, name);
			}
			const { message } = events[0]?.data ?? {};
			t.strictSame(Object.keys(message), [
				...["id", "type", "role", "model", "content", "usage"],
			]);
			t.equal(message.usage.output_tokens, 0);
			t.ok(message.usage.input_tokens > 0, "an estimate");
			const { delta, usage } = events.at(-2)?.data ?? {};
			t.strictSame(delta, { stop_reason: "max_tokens" });
			t.strictSame(Object.keys(usage), messagesCounts(ollama));
			t.equal(usage.output_tokens, cut);
		},
		"without a stream, the other APIs send one piece of JSON": async (
			t,
			ollama,
		) => {
			for (const [path, members, usage] of [
				[
					"/v1/chat/completions",
					[
						...["id", "object", "created", "model", "system_fingerprint"],
						...["choices", "usage"],
					],
					openaiCounts(ollama),
				],
				[
					"/v1/completions",
					[
						...["id", "object", "created", "model", "system_fingerprint"],
						...["choices", "usage"],
					],
					openaiCounts(ollama),
				],
				[
					"/v1/responses",
					responseMembers,
					[
						...["input_tokens", "output_tokens", "total_tokens"],
						...["input_tokens_details", "output_tokens_details"],
					],
				],
				[
					"/v1/messages",
					[
						...["id", "type", "role", "model", "content", "stop_reason"],
						"usage",
					],
					messagesCounts(ollama),
				],
			] as const) {
				const { status, headers, text } = await ollama.ask(
					...["POST", path],
					bodyOf(path, cut),
				);
				t.equal(status, 200, path);
				t.equal(headers["content-type"], "application/json", path);
				const body = JSON.parse(text);
				t.strictSame(Object.keys(body), members, path);
				t.strictSame(Object.keys(body.usage), usage, path);
			}
		},
		"a prompt that was just read is told as cached, where that is told at all":
			async (t, ollama) => {
				const again = async (path: string, more: object = {}) => {
					const call = () =>
						ollama.ask(
							...(["POST", path] as const),
							bodyOf(path, cut, { stream: false, ...more }),
						);
					await call();
					return JSON.parse((await call()).text);
				};
				const isTold = ollama.has("cachedTokens");
				for (const path of ["/api/generate", "/api/chat"]) {
					const reply = await again(path);
					t.equal(
						reply.prompt_eval_cached_count,
						isTold ? reply.prompt_eval_count - 1 : undefined,
						path,
					);
				}
				const { usage } = await again("/v1/chat/completions");
				t.equal(
					usage.prompt_tokens_details?.cached_tokens,
					isTold ? usage.prompt_tokens - 1 : undefined,
				);
				const { usage: responses } = await again("/v1/responses");
				t.equal(
					responses.input_tokens_details.cached_tokens,
					isTold ? responses.input_tokens - 1 : 0,
				);
				const { usage: messages } = await again("/v1/messages");
				t.equal(
					messages.input_tokens,
					isTold ? 1 : usage.prompt_tokens,
					"in which they are no part of the others",
				);
				t.equal(
					messages.cache_read_input_tokens,
					isTold ? usage.prompt_tokens - 1 : undefined,
				);
			},
		"0 sets no limit to a reply, nor does max_completion_tokens": async (
			t,
			ollama,
		) => {
			const ends = { stream: false, stop: ["."] };
			for (const path of ["/api/generate", "/api/chat"]) {
				const body = bodyOf(path, 0, ends);
				const options = { num_predict: 0, seed: 1, stop: ends.stop };
				const { text } = await ollama.ask("POST", path, { ...body, options });
				t.equal(JSON.parse(text).done_reason, "stop", path);
			}
			for (const [path, limits] of [
				["/v1/completions", {}],
				["/v1/chat/completions", {}],
				[
					"/v1/chat/completions",
					{ max_tokens: undefined, max_completion_tokens: 1 },
				],
			] as const) {
				const body = { ...bodyOf(path, 0, ends), ...limits };
				const { text } = await ollama.ask("POST", path, body);
				t.equal(JSON.parse(text).choices[0].finish_reason, "stop", path);
			}
		},
		"what a model cannot do is 400": async (t, ollama) => {
			const tool = { name: "f", parameters: { type: "object" } };
			const noTools =
				"registry.ollama.ai/library/smol:latest does not support tools";
			for (const [path, more, message] of [
				["/api/generate", { think: true }, '"smol" does not support thinking'],
				["/api/chat", { think: true }, '"smol" does not support thinking'],
				[
					"/api/chat",
					{ tools: [{ type: "function", function: tool }] },
					noTools,
				],
				[
					"/v1/chat/completions",
					{ tools: [{ type: "function", function: tool }] },
					noTools,
				],
				["/v1/responses", { tools: [{ type: "function", ...tool }] }, noTools],
				[
					"/v1/messages",
					{ tools: [{ name: "f", input_schema: { type: "object" } }] },
					noTools,
				],
				[
					"/api/generate",
					{ top_logprobs: 21 },
					"top_logprobs must be between 0 and 20",
				],
			] as const) {
				const { status, text } = await ollama.ask(
					...["POST", path],
					bodyOf(path, cut, more),
				);
				t.equal(status, 400, `${path} ${message}`);
				const { error } = JSON.parse(text);
				t.equal(path.startsWith("/api/") ? error : error.message, message);
			}
		},
	},
};

const responseMembers = [
	...["id", "object", "created_at", "completed_at", "status"],
	...["incomplete_details", "model", "previous_response_id", "instructions"],
	...["output", "error", "tools", "tool_choice", "truncation"],
	...["parallel_tool_calls", "text", "top_p", "presence_penalty"],
	...["frequency_penalty", "top_logprobs", "temperature", "reasoning"],
	...["usage", "max_output_tokens", "max_tool_calls", "store", "background"],
	...["service_tier", "metadata", "safety_identifier", "prompt_cache_key"],
];

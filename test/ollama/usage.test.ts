import t from "tap";
import type { ReplyFormat } from "../../src/ollama/errors.ts";
import { everyBytes, readEnd } from "../support/replyEnds.ts";

/** The end of a reply that came in pieces of a size. */
function read(
	path: string,
	format: ReplyFormat,
	text: string,
	pieceBytes = 64,
) {
	const bytes = Buffer.from(text);
	return readEnd(path, format, bytes, everyBytes(bytes.length, pieceBytes));
}

const line = (value: unknown) => `${JSON.stringify(value)}\n`;
const counts = {
	total_duration: 9,
	load_duration: 5_000_000,
	prompt_eval_count: 11,
	prompt_eval_duration: 1_500_000,
	eval_count: 22,
	eval_duration: 7_250_000,
};
const noTimes = { loadMs: undefined, promptMs: undefined, evalMs: undefined };

t.test(
	"model and counts are found whatever the pieces are, behind megabytes of context",
	async (t) => {
		const text =
			line({ model: "qwen3:8b", response: "a", done: false }).repeat(500) +
			line({
				model: "qwen3:8b",
				response: "",
				done: true,
				context: Array.from({ length: 200_000 }, (_, i) => i),
				...counts,
			});
		for (const pieceBytes of [1000, 4096, 65536, 10_000_000]) {
			const end = read("/api/generate", "ndjson", text, pieceBytes);
			t.strictSame(
				end.usage,
				{
					model: "qwen3:8b",
					tokensIn: 11,
					tokensCached: undefined,
					tokensOut: 22,
					loadMs: 5,
					promptMs: 1.5,
					evalMs: 7.25,
				},
				`${pieceBytes}`,
			);
			t.ok(end.isComplete);
			t.equal(end.lastByte, 10);
		}
		t.strictSame(
			read("/api/generate", "ndjson", text.slice(0, 30_000), 1).usage.model,
			"qwen3:8b",
			"byte by byte",
		);
	},
);

t.test(
	"what a model says is never taken for a count, an error or an end",
	async (t) => {
		const lies =
			'"eval_count":999,"done":true}\n{"error":"x"}\ndata: [DONE]\nevent: message_stop\n';
		const said = read(
			"/api/chat",
			"ndjson",
			line({ model: "m", message: { content: lies }, done: false }),
		);
		t.equal(said.usage.tokensOut, undefined);
		t.notOk(said.isComplete);
		t.notOk(said.endsWithError);
		const toolCall = line({
			model: "m",
			message: {
				tool_calls: [
					{
						function: {
							arguments: {
								done: true,
								error: "x",
								total_duration: 1,
								eval_count: 999,
							},
						},
					},
				],
			},
			done: false,
		});
		const called = read("/api/chat", "ndjson", toolCall);
		t.notOk(called.isComplete);
		t.notOk(called.endsWithError);
		t.equal(called.usage.tokensOut, undefined);
		const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
		for (const path of [
			"/v1/chat/completions",
			"/v1/completions",
			"/v1/messages",
			"/v1/responses",
		]) {
			const text = data({ choices: [{ delta: { content: lies } }] });
			const sse = read(path, "sse", text);
			t.notOk(sse.isComplete, path);
			t.notOk(sse.endsWithError, path);
		}
	},
);

t.test("each stream's own end, and its own error, is recognised", async (t) => {
	const ends: [string, "ndjson" | "sse", string][] = [
		["/api/chat", "ndjson", line({ model: "m", done: true, ...counts })],
		["/api/chat", "ndjson", line({ error: "boom" })],
		[
			"/api/generate",
			"ndjson",
			line({ model: "m", response: "", done: true, done_reason: "unload" }),
		],
		["/v1/chat/completions", "sse", "data: {}\n\ndata: [DONE]\n\n"],
		[
			"/v1/messages",
			"sse",
			'event: message_stop\ndata: {"type":"message_stop"}\n\n',
		],
		[
			"/v1/responses",
			"sse",
			`event: response.completed\ndata: {"response":{"usage":{"input_tokens":1}}}\n\n`,
		],
		["/api/pull", "ndjson", line({ status: "pulling manifest" })],
	];
	for (const [path, format, text] of ends)
		t.ok(read(path, format, text).isComplete, path);
	t.ok(read("/api/chat", "ndjson", line({ error: "boom" })).endsWithError);
	for (const path of ["/v1/chat/completions", "/v1/messages", "/v1/responses"])
		t.ok(
			read(path, "sse", 'data: {"a":1}\n\nevent: error\ndata: {"error":{}}\n\n')
				.endsWithError,
			path,
		);
});

t.test(
	"what Ollama writes at the start of a stream in place of counts is none",
	async (t) => {
		const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
		const none = {
			tokensIn: undefined,
			tokensCached: undefined,
			tokensOut: undefined,
			...noTimes,
		};
		const left: [string, string][] = [
			[
				"/v1/completions",
				data({
					model: "m",
					choices: [{ text: "a" }],
					usage: { prompt_tokens: 0, completion_tokens: 0, total_tokens: 0 },
				}).repeat(5),
			],
			[
				"/v1/messages",
				`event: message_start\n${data({
					type: "message_start",
					message: { model: "m", usage: { input_tokens: 9, output_tokens: 0 } },
				})}`,
			],
			[
				"/v1/responses",
				`event: response.created\n${data({
					type: "response.created",
					response: { model: "m", usage: { input_tokens: 0 } },
				})}`,
			],
		];
		for (const [path, text] of left)
			t.strictSame(
				read(path, "sse", text).usage,
				{ model: "m", ...none },
				path,
			);
	},
);

t.test(
	"an event is known by its type where it has no name of its own",
	async (t) => {
		const text = 'data: {"sequence_number":3,"type":"response.completed"}\n\n';
		t.ok(read("/v1/responses", "sse", text).isComplete);
	},
);

t.test(
	"vLLM's streams of transcriptions are read as its others, but for their end, which need not be marked",
	async (t) => {
		const path = "/v1/audio/transcriptions";
		const chunk = 'data: {"model":"whisper","choices":[{"delta":{}}]}\n\n';
		const usage = 'data: {"usage":{"prompt_tokens":3,"completion_tokens":4}}';
		const done = "data: [DONE]\n\n";
		t.match(read(path, "sse", `${chunk}${usage}\n\n${done}`), {
			usage: { model: "whisper", tokensIn: 3, tokensOut: 4 },
			endsWithError: false,
		});
		t.ok(
			read(path, "sse", `${chunk}data: {"error":{"code":500}}\n\n${done}`)
				.endsWithError,
		);
		t.match(read(path, "sse", chunk), {
			isComplete: true,
			endsWithError: false,
		});
	},
);

t.test("comments between a stream's last events change nothing", async (t) => {
	const end = read(
		"/v1/chat/completions",
		"sse",
		`data: {"model":"m"}\n\ndata: {"usage":{"prompt_tokens":3,"completion_tokens":4}}\n\n${": still here\n\n".repeat(20)}data: [DONE]\n\n`,
	);
	t.match(end, { isComplete: true, usage: { tokensIn: 3, tokensOut: 4 } });
});

t.test("Ollama's times are read from its own replies alone", async (t) => {
	const whole = JSON.stringify({ model: "m", done: true, ...counts });
	t.match(read("/api/chat", "opaque", whole).usage, {
		loadMs: 5,
		promptMs: 1.5,
		evalMs: 7.25,
	});
	t.match(
		read(
			"/api/embed",
			"opaque",
			JSON.stringify({ model: "m", embeddings: [[1]], load_duration: 2e6 }),
		).usage,
		{ loadMs: 2, promptMs: undefined, evalMs: undefined },
		"one that tells no counts",
	);
	const early = { ...counts, done: false };
	t.match(
		read("/api/chat", "ndjson", line({ model: "m", ...early })).usage,
		noTimes,
		"what is in a line that is not the last",
	);
	t.match(
		read(
			"/v1/chat/completions",
			"opaque",
			JSON.stringify({ model: "m", usage: counts, ...counts }),
		).usage,
		noTimes,
	);
});

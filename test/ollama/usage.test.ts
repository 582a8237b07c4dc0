import t from "tap";
import { matchRoute, type Route } from "../../src/ollama/routes.ts";
import { ReplyEnds } from "../../src/ollama/usage.ts";

function routeOf(path: string): Route {
	const match = matchRoute("POST", path);
	if (match.kind !== "route") throw new Error(`no route ${path}`);
	return match.route;
}

/** The ends of a reply that came in pieces of a size. */
function read(text: string, pieceBytes = 64): ReplyEnds {
	const ends = new ReplyEnds();
	const bytes = Buffer.from(text);
	for (let at = 0; at < bytes.length; at += pieceBytes)
		ends.push(bytes.subarray(at, at + pieceBytes));
	return ends;
}

const line = (value: unknown) => `${JSON.stringify(value)}\n`;
const counts = {
	total_duration: 9,
	prompt_eval_count: 11,
	eval_count: 22,
	eval_duration: 7,
};

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
			const ends = read(text, pieceBytes);
			t.strictSame(
				ends.usage(routeOf("/api/generate")),
				{ model: "qwen3:8b", tokensIn: 11, tokensOut: 22 },
				`${pieceBytes}`,
			);
			t.ok(ends.isComplete(routeOf("/api/generate"), "ndjson"));
			t.equal(ends.lastByte, 10);
		}
		t.strictSame(
			read(text.slice(0, 30_000), 1).usage(routeOf("/api/generate")).model,
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
			line({ model: "m", message: { content: lies }, done: false }),
		);
		t.equal(said.usage(routeOf("/api/chat")).tokensOut, undefined);
		t.notOk(said.isComplete(routeOf("/api/chat"), "ndjson"));
		t.notOk(said.endsWithError("ndjson"));
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
		t.notOk(read(toolCall).isComplete(routeOf("/api/chat"), "ndjson"));
		t.equal(read(toolCall).usage(routeOf("/api/chat")).tokensOut, undefined);
		const data = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
		const sse = read(data({ choices: [{ delta: { content: lies } }] }));
		t.notOk(sse.isComplete(routeOf("/v1/chat/completions"), "sse"));
		t.notOk(sse.isComplete(routeOf("/v1/messages"), "sse"));
		t.notOk(sse.endsWithError("sse"));
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
		t.ok(read(text).isComplete(routeOf(path), format), path);
	t.ok(read(line({ error: "boom" })).endsWithError("ndjson"));
	t.ok(
		read('data: {"a":1}\n\nevent: error\ndata: {"error":{}}\n\n').endsWithError(
			"sse",
		),
	);
});

import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import type { ReplyFormat } from "../../src/ollama/errors.ts";
import { replyShapeOf } from "../../src/ollama/standIn/replies.ts";
import type { Generation } from "../../src/ollama/standIn/replyShape.ts";
import { everyBytes, readEnd } from "../support/replyEnds.ts";

const paths = [
	...["/api/chat", "/api/generate", "/v1/chat/completions"],
	...["/v1/completions", "/v1/messages", "/v1/responses"],
];
const formatOf = (path: string): ReplyFormat =>
	path.startsWith("/api/") ? "ndjson" : "sse";

/** What could be taken for an event with text, were it not a part of one. */
const lies =
	'"delta":{"content":"a"} "text":"a" "done":false\n\ndata: {"delta":"a"}\n\n\\" ';

/** A stream of the stand-in's without its counts. */
function streamOf(path: string, tokens: readonly string[]): string {
	const shape = replyShapeOf(path, false);
	const generation: Generation = {
		...{ model: "m", tokens, isCut: false, isRepeated: false },
		...{ startedAtMs: 0, loadedAtMs: 0, request: {} },
	};
	const events = tokens.map(
		(token, index) => shape?.token(generation, token, index) ?? "",
	);
	return (shape?.begin?.(generation) ?? "") + events.join("");
}

/** Counted in the whole text, event by event. */
function countSlowly(path: string, text: string): number {
	const isText: Record<string, RegExp> = {
		"/v1/chat/completions": /(?<!\\)"delta": ?\{[^}]/g,
		"/v1/messages": /(?<!\\)"delta": ?\{[^}]/g,
		"/v1/responses": /(?<!\\)"delta": ?"[^"]/g,
		"/v1/completions": /(?<!\\)"text": ?"[^"]/g,
	};
	const pattern = isText[path] ?? /(?<!\\)"done": ?fa/g;
	return text.split("\n").filter((line) => line.search(pattern) !== -1).length;
}

const countIn = (path: string, bytes: Buffer, cuts: readonly number[] = []) =>
	readEnd(path, formatOf(path), bytes, cuts).textEvents;

t.test("each event with text counts once, wherever it is split", async (t) => {
	for (const path of paths)
		for (const [count, filler] of [
			[40, "a"],
			[9, lies.repeat(9)],
			[5, lies.repeat(300)],
		] as const) {
			const tokens = Array.from({ length: count }, (_, n) => `${filler}${n}`);
			const bytes = Buffer.from(streamOf(path, tokens));
			const what = `${path}, ${bytes.length} bytes`;
			t.equal(countIn(path, bytes), count, `${what}, in one read`);
			for (const size of [1, 7, 128, 4_090, 4_096, 8_191, 65_536])
				if (size > 1 || bytes.length < 20_000)
					t.equal(
						countIn(path, bytes, everyBytes(bytes.length, size)),
						count,
						`${what}, in pieces of ${size}`,
					);
			const wrong = everyBytes(
				bytes.length,
				Math.ceil(bytes.length / 4_000),
			).filter((cut) => countIn(path, bytes, [cut]) !== count);
			t.strictSame(wrong, [], `${what}, split at any byte`);
		}
});

/** In what a model says as JSON, and not as a text of it, nothing is escaped. */
const items = (count: number) =>
	Array.from({ length: count }, (_, n) => ({
		...{ title: `${n}${lies}`, done: false },
		...{ delta: "a", text: "a", more: { delta: { a: 1 }, done: false } },
	}));

/** One event or line of each kind that has a call of a tool, or what is said of each token. */
const calls: [path: string, event: (count: number) => string][] = [
	...["/api/chat", "/api/generate"].flatMap(
		(path): [string, (count: number) => string][] => {
			const call = (count: number) => ({
				tool_calls: [
					{ function: { name: "f", arguments: { items: items(count) } } },
				],
			});
			const line = (value: object, end = "\n") => JSON.stringify(value) + end;
			return [
				[path, (n) => line({ message: call(n), done: false })],
				[path, (n) => line({ message: call(n), done: false }, "\r\n")],
				[path, (n) => line({ response: "", done: false, ...call(n) })],
				[path, (n) => line({ done: false, logprobs: items(n) })],
			];
		},
	),
	[
		"/v1/responses",
		(n) =>
			`event: response.output_item.done\ndata: ${JSON.stringify({
				item: { type: "tool_search_call", arguments: { items: items(n) } },
			})}\n\n`,
	],
	[
		"/v1/messages",
		(n) =>
			`event: content_block_start\ndata: ${JSON.stringify({
				content_block: { type: "server_tool_use", input: { items: items(n) } },
			})}\n\n`,
	],
];

t.test(
	"what a model hands to a tool is one event, whatever stands in it",
	async (t) => {
		for (const [path, event] of calls)
			for (const [count, events] of [
				[1, 30],
				[40, 3],
				[900, 2],
			] as const) {
				const bytes = Buffer.from(event(count).repeat(events));
				const what = `${path}, ${event(1).slice(0, 60)}, ${bytes.length} bytes`;
				t.equal(countIn(path, bytes), events, what);
				const wrong = everyBytes(
					bytes.length,
					Math.ceil(bytes.length / 300),
				).filter((cut) => countIn(path, bytes, [cut]) !== events);
				t.strictSame(wrong, [], `${what}, split anywhere`);
				const small = everyBytes(bytes.length, 97);
				t.equal(countIn(path, bytes, small), events, `${what}, in pieces`);
			}
	},
);

t.test("events around the text are none of it", async (t) => {
	for (const path of paths) {
		const shape = replyShapeOf(path, false);
		const generation: Generation = {
			...{ model: "m", tokens: ["a", "b"], isCut: false, isRepeated: false },
			...{ startedAtMs: 0, loadedAtMs: 0, request: {} },
		};
		const end = shape?.end(generation) ?? "";
		const text = streamOf(path, ["a", "b"]) + end;
		const { textEvents, usage } = readEnd(
			path,
			formatOf(path),
			Buffer.from(text),
		);
		// What ends messages has a delta without text, and the counts.
		const more = path === "/v1/messages" ? 1 : 0;
		t.equal(textEvents, 2 + more, path);
		t.equal(usage.tokensOut, /completions$/.test(path) ? undefined : 2, path);
	}
});

t.test("the events of other servers count, with blanks in them", async (t) => {
	const data = (text: string) => `data: ${text}\n\n`;
	const head = data(
		'{"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]}',
	);
	const text = data(
		'{"choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": null}]}',
	);
	const end = data(
		'{"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}',
	);
	t.equal(
		countIn(
			"/v1/chat/completions",
			Buffer.from(`${head}${text.repeat(3)}${end}data: [DONE]\n\n`),
		),
		4,
		"the one that names the role is taken for one of them",
	);
});

t.test(
	"a reply that is no stream, and one of no text, count none",
	async (t) => {
		const whole = Buffer.from('{"model":"m","choices":[{"text":"a"}]}');
		t.equal(readEnd("/v1/completions", "opaque", whole).textEvents, 0);
		const pulled = Buffer.from('{"status":"a","done":false}\n'.repeat(900));
		t.equal(readEnd("/api/pull", "ndjson", pulled).textEvents, 0);
	},
);

t.test(
	"any stream, broken off anywhere, in any pieces, is counted as in its whole text",
	async () => {
		const part = fc.double({ min: 0, max: 1, noNaN: true });
		const token = fc.oneof(
			fc.string({ maxLength: 20, unit: "binary" }),
			fc.constantFrom(lies, '"', "\\", '\\"delta":{"a', '"done":false,'),
			fc.nat({ max: 5_000 }).map((size) => lies.repeat(size / lies.length)),
		);
		fc.assert(
			fc.property(
				fc.constantFrom(...paths),
				fc.array(token, { maxLength: 60 }),
				part,
				fc.array(part, { maxLength: 12 }),
				(path, tokens, brokenAt, splits) => {
					const whole = Buffer.from(streamOf(path, tokens));
					const bytes = whole.subarray(
						0,
						Math.ceil(whole.length * Math.min(1, brokenAt * 1.2)),
					);
					const cuts = splits
						.map((at) => Math.floor(at * bytes.length))
						.sort((a, b) => a - b);
					assert.equal(
						countIn(path, bytes, cuts),
						countSlowly(path, bytes.toString("latin1")),
					);
				},
			),
			{ numRuns: 3_000 },
		);
	},
);

import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import {
	Conversations,
	conversationOf,
	worthOf,
} from "../../src/upstream/hosts/conversation.ts";

const of = (body: unknown, key = "laptop", model = "qwen3:8b") =>
	conversationOf(key, model, Buffer.from(JSON.stringify(body)));
const system = { role: "system", content: 'You say "[]{}" and \\"' };
const first = { role: "user", content: "why is the sky blue?" };

t.test("a conversation is known by how it began", async (t) => {
	for (const beginning of [[first], [system, first]]) {
		const turns = [
			{ model: "m", messages: beginning },
			{
				messages: [...beginning, { role: "assistant", content: "x" }],
				model: "m",
			},
			{
				model: "m",
				temperature: 1,
				messages: [
					...beginning,
					{ role: "assistant", content: "x" },
					{ role: "user", content: "and red?" },
				],
			},
		].map((body) => of(body));
		t.equal(new Set(turns).size, 1);
		t.type(turns[0], "string");
	}
});

t.test("other keys, models and beginnings are others", async (t) => {
	const body = { messages: [system, first] };
	const all = [
		of(body),
		of(body, "phone"),
		of(body, "laptop", "qwen3:4b"),
		of({ messages: [system, { ...first, content: "hi" }] }),
		of({ messages: [first] }),
		of({ prompt: "once upon a time" }),
		of({ input: [{ role: "user", content: "hi" }] }),
	];
	t.equal(new Set(all).size, all.length);
	t.equal(of({ model: "m" }), undefined);
});

t.test("no body takes long or makes it throw", async (t) => {
	const anything = fc.oneof(
		fc.uint8Array({ maxLength: 200 }),
		fc.string().map((text) => Buffer.from(`{"messages":[{"a":"${text}`)),
		fc
			.string({ unit: fc.constantFrom('"', "\\", "{", "[", "]", "}") })
			.map((text) => Buffer.from(`"messages":[${text}`)),
	);
	fc.assert(
		fc.property(anything, (bytes) => {
			const found = conversationOf("k", "m", Buffer.from(bytes));
			assert.ok(found === undefined || found.length === 28);
		}),
		{ numRuns: 3_000 },
	);
	t.ok(
		conversationOf(
			"k",
			"m",
			Buffer.from(`{"messages":["${"\\".repeat(10_000_000)}`),
		),
	);
});

t.test("conversations are forgotten, by time and by number", async (t) => {
	const known = new Conversations();
	known.remember("a", "minipc", 0);
	t.equal(known.find("a", 1_000), "minipc");
	t.equal(known.find("a", 11 * 60_000), undefined);
	for (let at = 0; at < 10_000; at += 1) known.remember(`c${at}`, "minipc", 0);
	t.equal(known.size, 4096);
	t.equal(known.find("c0", 1), undefined);
	t.equal(known.find("c9999", 1), "minipc");
});

t.test("a long prompt's cache is worth more, up to a bound", async (t) => {
	t.ok(worthOf(10_000) > worthOf(1_000));
	t.equal(worthOf(10 ** 9), 30_000);
});

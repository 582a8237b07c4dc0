import t from "tap";
import { factsOfWhole, readFacts } from "../../src/gate/bodyFacts.ts";
import { readHead } from "../../src/gate/requestHead.ts";
import { matchRoute } from "../../src/ollama/routes.ts";

const head = readHead([]);
const match = matchRoute("POST", "/api/chat");
if (match.kind !== "route") throw new Error("there is no such route");
const { route } = match;
const bytes = (...parts: (string | number[])[]) =>
	Buffer.concat(parts.map((part) => Buffer.from(part as string)));

const bodies: readonly [string, Buffer, string | undefined][] = [
	["a name", bytes('{"model":"qwen3:8b"}'), "qwen3:8b"],
	[
		"another name of the same length",
		bytes('{"model":"qwen4:8b"}'),
		"qwen4:8b",
	],
	["the first again", bytes('{"model":"qwen3:8b"}'), "qwen3:8b"],
	["a name with an escape", bytes('{"model":"qwen\\u0033:8b"}'), "qwen3:8b"],
	["no name", bytes("{}"), ""],
	["an empty name", bytes('{"model":""}'), ""],
	["a name that is no text", bytes('{"model":["a"]}'), undefined],
	["two names", bytes('{"model":"a","model":"b"}'), undefined],
	["a name in other letters", bytes('{"Model":"a"}'), undefined],
	[
		"a prompt that is not UTF-8, which Ollama takes",
		bytes('{"prompt":"', [0xff, 0xc3], '","model":"qwen3:8b"}'),
		"qwen3:8b",
	],
	[
		"a name that is not UTF-8",
		bytes('{"model":"qwen3', [0xff], '"}'),
		undefined,
	],
	["what is not JSON", bytes("model=a"), undefined],
];

for (const [what, body, model] of bodies)
	t.test(`the queue goes by the model of ${what}`, async (t) => {
		t.match(factsOfWhole(route, head, body), { model });
		for (const size of [1, 3, body.length]) {
			const reader = readFacts(route, head);
			for (let at = 0; at < body.length; at += size)
				reader.push(body.subarray(at, at + size));
			t.match(reader.finish(), { model }, `in pieces of ${size}`);
		}
	});

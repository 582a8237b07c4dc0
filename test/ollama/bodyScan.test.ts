import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { BodyScan, type ScanResult } from "../../src/ollama/bodyScan.ts";
import { WatchList } from "../../src/ollama/watchedNames.ts";
import { readLikeGo } from "../support/goJson.ts";

const fields = ["model", "name", "keep_alive"];
const watched = [...fields, "options"];
const watchList = new WatchList({
	fields,
	options: ["num_ctx", "num_gpu"],
	maps: ["files"],
	toolTypes: ["web_search", "web_fetch"],
});

/** Has read everything that these tests have. */
const used = new BodyScan(watchList);

function scan(
	body: string | Buffer,
	pieceBytes = Number.POSITIVE_INFINITY,
): ScanResult {
	const scanner = new BodyScan(watchList);
	const bytes = Buffer.from(body);
	// Broken off, it is in the middle of whatever it was in.
	used.readWhole(bytes.subarray(0, bytes.length >> 1));
	assert.deepEqual(
		used.readWhole(bytes),
		new BodyScan(watchList).readWhole(bytes),
	);
	for (let at = 0; at < bytes.length; at += pieceBytes)
		scanner.push(bytes.subarray(at, Math.min(bytes.length, at + pieceBytes)));
	return scanner.finish();
}

function fieldsOf(
	body: string | Buffer,
	pieceBytes?: number,
): Record<string, unknown> | string {
	const result = scan(body, pieceBytes);
	return result.kind === "fields"
		? Object.fromEntries(result.fields)
		: result.message;
}

t.test("the fields that matter are found, whatever the pieces", async (t) => {
	const body = JSON.stringify({
		messages: [
			{
				role: "user",
				content: 'a "model": "b" \\ \u00e9 \u{1f600}',
				images: ["A".repeat(5000)],
				model: "inner",
			},
		],
		model: "qwen3:8b",
		options: { num_ctx: 4096, stop: ["model"], nested: { num_gpu: 1 } },
		keep_alive: -1,
		stream: true,
		nothing: null,
	});
	for (const pieceBytes of [1, 2, 3, 7, 64, 4096, 1 << 20])
		t.strictSame(
			fieldsOf(body, pieceBytes),
			{
				model: "qwen3:8b",
				options: undefined,
				"options.num_ctx": 4096,
				keep_alive: -1,
			},
			`${pieceBytes}`,
		);
	t.strictSame(
		fieldsOf('{"\\u006dodel":"\\u0071wen3"}'),
		{ model: "qwen3" },
		"escapes are read",
	);
	t.strictSame(fieldsOf(" {} \n"), {});
});

const refused: [string, string | Buffer, RegExp][] = [
	["a field twice", '{"model":"a","model":"b"}', /has "model" twice/],
	[
		"a field twice, once escaped",
		'{"model":"a","\\u006dodel":"b"}',
		/has "model" twice/,
	],
	[
		"another case",
		'{"Model":"b"}',
		/has "Model", which Ollama takes for "model"/,
	],
	[
		"another case beside the right one",
		'{"model":"a","MODEL":"b"}',
		/has "MODEL"/,
	],
	["a Kelvin sign", '{"\u212aeep_alive":0}', /takes for "keep_alive"/],
	[
		"a Kelvin sign, escaped",
		'{"\\u212aeep_alive":0}',
		/takes for "keep_alive"/,
	],
	["a long s", '{"option\u017f":{}}', /takes for "options"/],
	[
		"an option twice",
		'{"options":{"num_ctx":1,"num_ctx":2}}',
		/has "options.num_ctx" twice/,
	],
	[
		"options twice",
		'{"options":{"num_ctx":1},"options":{}}',
		/has "options" twice/,
	],
	["a second value", '{"model":"a"}{"model":"b"}', /something follows/],
	[
		"a second value behind a line",
		'{"model":"a"}\n{"model":"b"}',
		/something follows/,
	],
	["junk behind", '{"model":"a"} x', /something follows/],
	["a byte order mark", '\ufeff{"model":"a"}', /byte order mark/],
	["a list", '["model"]', /not a JSON object/],
	["a string", '"model"', /not a JSON object/],
	["a word", "null", /not a JSON object/],
	["nothing", "", /not complete/],
	["half of it", '{"model":"a"', /not complete/],
	["half a string", '{"model":"a', /not complete/],
	["a comma too many", '{"model":"a",}', /not valid JSON/],
	["a comma too few", '{"model":"a" "name":"b"}', /not valid JSON/],
	["a colon too many", '{"model"::"a"}', /not valid JSON/],
	["single quotes", "{'model':'a'}", /not valid JSON/],
	["no quotes", "{model:'a'}", /not valid JSON/],
	["a comment", '{/**/"model":"a"}', /not valid JSON/],
	["a wrong word", '{"model":nul}', /not valid JSON/],
	["a wrong number", '{"model":01}', /not valid JSON/],
	["a bracket for a brace", '{"a":[}', /not valid JSON/],
	["a line break in the value", '{"model":"a\nb"}', /"model" cannot be read/],
	[
		"invalid UTF-8",
		Buffer.from([0x7b, 0x22, 0x61, 0x22, 0x3a, 0x22, 0xff, 0x22, 0x7d]),
		/not valid UTF-8/,
	],
	[
		"an overlong form",
		Buffer.from([0x7b, 0x22, 0xc0, 0xaf, 0x22, 0x3a, 0x31, 0x7d]),
		/not valid UTF-8/,
	],
	[
		"half a character at the end",
		Buffer.from([0x7b, 0x7d, 0xe2, 0x82]),
		/not valid|something follows/,
	],
	["nesting without end", '{"a":'.repeat(10_001), /nests deeper than 10000/],
	[
		"lists without end",
		`{"a":${"[".repeat(1_000_000)}`,
		/nests deeper than 10000/,
	],
	[
		"a name without end",
		`{"model":"${"a".repeat(5000)}"}`,
		/"model" cannot be read/,
	],
];
for (const [what, body, message] of refused)
	t.test(`refused: ${what}`, async (t) => {
		for (const pieceBytes of [1, 5, 1 << 20])
			t.match(fieldsOf(body, pieceBytes), message, `${pieceBytes}`);
	});

t.test("what is further in is read as deep as Go reads", async (t) => {
	const deep = (levels: number) =>
		`{"model":"a","x":${"[".repeat(levels - 1)}${"]".repeat(levels - 1)},"name":"b"}`;
	for (const levels of [300, 9_999, 10_000])
		t.strictSame(
			fieldsOf(deep(levels), 4096),
			{ model: "a", name: "b" },
			`${levels}`,
		);
	const mixed = `{"a":${'{"b":['.repeat(4_000)}${"]}".repeat(4_000)}}`;
	t.strictSame(fieldsOf(mixed, 77), {});
	t.match(fieldsOf(mixed.replace("]}]}", "}]]}")), /not valid JSON/);
});

t.test("options are a map: its keys match to the letter", async (t) => {
	t.strictSame(fieldsOf('{"options":{"NUM_CTX":1,"num_ct\u0078":2}}'), {
		options: undefined,
		"options.num_ctx": 2,
	});
	t.strictSame(fieldsOf('{"options":{"num_gpu ":1,"\u212aum":2}}'), {
		options: undefined,
	});
});

t.test("every value of a watched map is found", async (t) => {
	const found = (body: string, pieceBytes?: number) => {
		const result = scan(body, pieceBytes);
		return result.kind === "fields" ? result.mapped : result.message;
	};
	const digest = `sha256:${"0f".repeat(32)}`;
	for (const pieceBytes of [1, 5, 1 << 20])
		t.strictSame(
			found(
				`{"files":{"a":"${digest}","a":"sh\u0061256:x","b":7,"c":null,"d":["e"],"f":{"g":"h"}},"x":{"y":"z"}}`,
				pieceBytes,
			),
			[digest, "sha256:x", "", "", "", ""],
			`${pieceBytes}`,
		);
	t.strictSame(found(`{"files":{"a":"${"x".repeat(200)}"}}`), [""]);
	t.strictSame(found('{"files":["a"],"x":"files"}'), []);
	const many = (count: number) =>
		`{"files":{${Array.from({ length: count }, (_, i) => `"${i}":"a"`).join(",")}}}`;
	t.equal(found(many(1024)).length, 1024);
	t.match(found(many(1025)), /more than 1024 files/);
	t.match(found('{"Files":{"a":"b"}}'), /takes for "files"/);
});

t.test("the type of a tool is found by any spelling of it", async (t) => {
	const typeOf = (tools: string, pieceBytes?: number) => {
		const result = scan(`{"a":1,"tools":${tools}}`, pieceBytes);
		return result.kind === "fields" ? result.toolType : result.message;
	};
	for (const [tools, type] of [
		['[{"type":"web_search_20250305","name":"a"}]', "web_search_20250305"],
		['[{"type":"x"},{"name":"a","type":"web_search"}]', "web_search"],
		['[{"type":"web\u005fsearch"}]', "web_search"],
		['[{"\u0074ype":"web_fetch_1"}]', "web_fetch_1"],
		['[{"TYPE":"web_search"}]', "web_search"],
		['[{"type":"web_search","type":"function"}]', "web_search"],
		['[{"type":" Web_Search"}]', " Web_Search"],
		[`[{"type":"web_search${"x".repeat(500)}"}]`, ""],
		['[{"a":{"type":"x"},"type":"web_search"}]', "web_search"],
	] as const)
		for (const pieceBytes of [1, 4, 1 << 20])
			t.equal(typeOf(tools, pieceBytes), type, tools);
	for (const tools of [
		'[{"type":"function","function":{"name":"web_search","type":"web_search"}}]',
		'[{"name":"web_search"}]',
		'[["type","web_search"]]',
		'{"type":"web_search"}',
		'"web_search"',
		'[{"type":"my_web_search"}]',
		'[{"type":["web_search"]}]',
		"null",
	])
		t.equal(typeOf(tools), undefined, tools);
	t.match(typeOf('[],"Tools":[{"type":"web_search"}]'), /takes for "tools"/);
	t.match(typeOf('[],"tools":[{"type":"web_search"}]'), /"tools" twice/);
});

t.test(
	"a value that is an object or a list is there, and has no value",
	async (t) => {
		t.strictSame(fieldsOf('{"model":{"a":1},"name":["x"]}'), {
			model: undefined,
			name: undefined,
		});
	},
);

t.test(
	"whatever the body, Go reads no field otherwise than the scan does",
	async (t) => {
		const seed = Number(process.env.FUZZ_SEED ?? Date.now() % 2 ** 31);
		t.comment(`seed ${seed}`);
		const key = fc.oneof(
			fc.constantFrom(
				"model",
				"Model",
				"MODEL",
				"mode\u006c",
				"\\u006dodel",
				"name",
				"nam\\u0065",
				"keep_alive",
				"num_ctx",
				"num_gpu",
				"\u212aeep_alive",
				"\\u212aeep_alive",
				"options",
				"option\u017f",
				"x",
			),
			fc
				.string({ maxLength: 6 })
				.map((text) => JSON.stringify(text).slice(1, -1)),
		);
		const scalar = fc.oneof(
			fc.constantFrom(
				'"a"',
				'"b\\""',
				'"\\ud83d\\ude00"',
				'"\\u0000"',
				"0",
				"-1.5e3",
				"true",
				"null",
				'""',
				'"\\\\"',
				'"a:b"',
			),
			fc
				.string({ maxLength: 5, unit: "grapheme" })
				.map((text) => JSON.stringify(text)),
		);
		const { value } = fc.letrec((tie) => ({
			value: fc.oneof(
				{ depthSize: "small", withCrossShrink: true },
				scalar,
				tie("list"),
				tie("object"),
			),
			list: fc
				.array(tie("value") as fc.Arbitrary<string>, { maxLength: 3 })
				.map((items) => `[${items.join(",")}]`),
			object: fc
				.array(fc.tuple(key, tie("value") as fc.Arbitrary<string>), {
					maxLength: 5,
				})
				.map(
					(members) =>
						`{${members.map(([name, text]) => `"${name}" :${text}`).join(", ")}}`,
				),
		})) as { value: fc.Arbitrary<string> };
		const options = fc
			.array(fc.tuple(key, value), { maxLength: 4 })
			.map(
				(members) =>
					`{${members.map(([name, text]) => `"${name}":${text}`).join(",")}}`,
			);
		const object = fc
			.array(
				fc.oneof(
					fc.tuple(key, value),
					fc.tuple(fc.constant("options"), options),
				),
				{ maxLength: 5 },
			)
			.map(
				(members) =>
					`{${members.map(([name, text]) => `"${name}":${text}`).join(",")}}`,
			);
		const damage = fc.tuple(
			fc.nat(),
			fc.constantFrom(
				"",
				'"',
				"\\",
				"{",
				"}",
				",",
				":",
				"\u0000",
				"\ufeff",
				" ",
				"{}",
				'{"model":"z"}',
			),
		);
		const body = fc
			.tuple(
				object,
				fc.option(damage),
				fc.constantFrom("", " ", "\n", '{"model":"z"}', "x"),
			)
			.map(([text, hurt, tail]) => {
				if (hurt === null) return text + tail;
				const at = hurt[0] % (text.length + 1);
				return (
					text.slice(0, at) +
					hurt[1] +
					text.slice(at + (hurt[1] === "" ? 1 : 0)) +
					tail
				);
			});
		let judged = 0;
		let agreed = 0;
		fc.assert(
			fc.property(body, fc.integer({ min: 1, max: 40 }), (text, pieceBytes) => {
				judged += 1;
				const bytes = Buffer.from(text);
				const ours = scan(bytes, pieceBytes);
				const whole = scan(bytes);
				if (ours.kind !== whole.kind)
					throw new Error("the pieces made a difference");
				if (ours.kind === "unclear") return;
				const go = readLikeGo(bytes, watched);
				// What Go refuses it does not act on.
				if (go.error) return;
				agreed += 1;
				const options = go.fields.get("options");
				if (
					typeof options === "object" &&
					options !== null &&
					!Array.isArray(options)
				)
					for (const name of ["num_ctx", "num_gpu"]) {
						const seen = (options as Record<string, unknown>)[name];
						const here = ours.fields.get(`options.${name}`);
						if (typeof seen !== "object" && seen !== here)
							throw new Error(
								`Go reads options.${name} as ${JSON.stringify(seen)}, the scan as ${JSON.stringify(here)}`,
							);
					}
				for (const name of watched) {
					const seen = go.fields.get(name);
					const here = ours.fields.get(name);
					if (ours.fields.has(name) !== go.fields.has(name))
						throw new Error(
							`Go ${go.fields.has(name) ? "has" : "lacks"} ${name}`,
						);
					if (typeof seen !== "object" && seen !== here)
						throw new Error(
							`Go reads ${name} as ${JSON.stringify(seen)}, the scan as ${JSON.stringify(here)}`,
						);
				}
			}),
			{ numRuns: 20_000, seed },
		);
		t.ok(judged >= 20_000);
		t.ok(agreed > 2_000, `${agreed} of ${judged} bodies were read by both`);
	},
);

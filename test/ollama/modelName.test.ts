import t from "tap";
import {
	formatModelName,
	parseModelName,
	parseModelPattern,
	spellPattern,
} from "../../src/ollama/modelName.ts";

t.test("a name has one canonical form, however it is written", async (t) => {
	const same = [
		"qwen3",
		"qwen3:latest",
		"QWEN3:Latest",
		" qwen3 ",
		"library/qwen3",
		"registry.ollama.ai/library/qwen3:latest",
		"https://registry.ollama.ai/library/qwen3",
		"http://REGISTRY.ollama.ai/Library/Qwen3:latest",
		"qwen3:local",
		"qwen3:latest:local",
	];
	for (const text of same) {
		const name = parseModelName(text);
		t.equal(
			name === undefined ? undefined : formatModelName(name),
			"qwen3:latest",
			text,
		);
	}
	t.equal(
		formatModelName(parseModelName("hf.co/User/Model-GGUF:Q4_K_M") ?? never()),
		"hf.co/user/model-gguf:q4_k_m",
	);
	t.equal(formatModelName(parseModelName("me/x:1b") ?? never()), "me/x:1b");
	t.match(parseModelName("localhost:5000/a/b"), {
		host: "localhost:5000",
		namespace: "a",
		model: "b",
		tag: "latest",
	});
});

t.test("a cloud model is one however that is written", async (t) => {
	for (const text of [
		"gpt-oss:120b-cloud",
		"gpt-oss:120b:cloud",
		"GPT-OSS:120B-CLOUD",
		"gpt-oss:120b:Cloud",
	])
		t.match(
			parseModelName(text),
			{ model: "gpt-oss", tag: "120b", cloud: true },
			text,
		);
	t.match(parseModelName("kimi:cloud"), { model: "kimi", cloud: true });
	t.match(parseModelName("my-cloud"), { model: "my-cloud", cloud: false });
});

t.test("what Ollama could read in its own way is no name", async (t) => {
	for (const text of [
		"",
		":",
		"a:",
		"/",
		"a/",
		"/a",
		"a//b",
		"a/b/c/d",
		"a b",
		"a\0",
		"qwen3\u212a",
		"ｑwen3",
		"a:cloud:local",
		"a:local:cloud",
		"a%2fb",
		"a\\b",
		"http://x",
		"../a",
		"x".repeat(600),
		"a:b-cloud:cloud",
	]) {
		const name = parseModelName(text);
		t.equal(name, undefined, JSON.stringify(text));
	}
});

const patterns: [string, string[], string[]][] = [
	[
		"qwen3:*",
		["qwen3", "qwen3:8b", "library/qwen3:0.6b", "Qwen3:8B"],
		[
			"qwen3.5:8b",
			"me/qwen3:8b",
			"hf.co/library/qwen3:8b",
			"qwen3:8b-cloud",
			"qwen3:cloud",
		],
	],
	["qwen3", ["qwen3", "qwen3:latest"], ["qwen3:8b", "qwen3x"]],
	["qwen*", ["qwen3:8b", "qwen", "qwen2.5-coder:7b"], ["me/qwen3", "xqwen3"]],
	[
		"*",
		["qwen3", "me/x:1b", "hf.co/u/m:q4"],
		["gpt-oss:120b-cloud", "kimi:cloud"],
	],
	["*:cloud", ["gpt-oss:120b-cloud", "kimi:cloud"], ["qwen3"]],
	[
		"gpt-oss:120b-cloud",
		["gpt-oss:120b:cloud", "gpt-oss:120b-cloud"],
		["gpt-oss:120b", "gpt-oss:20b-cloud"],
	],
	[
		"gpt-oss:*-cloud",
		["gpt-oss:120b-cloud", "gpt-oss:20b:cloud"],
		["gpt-oss:120b"],
	],
	["hf.co/*/*:*", ["hf.co/u/m:q4", "hf.co/u/m"], ["qwen3", "hf.co.evil/u/m"]],
	["me/*", ["me/x", "me/x:1b"], ["x", "you/x"]],
	["a.c:*", ["a.c:1"], ["abc:1"]],
];
for (const [text, matching, others] of patterns)
	t.test(`the pattern ${text}`, async (t) => {
		const pattern = parseModelPattern(text) ?? never();
		for (const name of matching)
			t.ok(pattern(parseModelName(name) ?? never()), name);
		for (const name of others)
			t.notOk(pattern(parseModelName(name) ?? never()), name);
	});

t.test("a pattern is told with the tag that it means", async (t) => {
	for (const [text, told] of [
		["qwen3", "qwen3:latest"],
		["hf.co:443/u/m", "hf.co:443/u/m:latest"],
		["qwen3:8b", "qwen3:8b"],
		["qwen3*", "qwen3*"],
		["me/*", "me/*"],
		["*:cloud", "*:cloud"],
		["gpt-oss:cloud", "gpt-oss:cloud"],
	] as const)
		t.equal(spellPattern(text), told);
});

t.test("what is no pattern is refused", async (t) => {
	for (const text of [
		"",
		"a b",
		"a:",
		"a/b/c/d",
		"[a-z]",
		"a:cloud:local",
		"(x)",
	])
		t.equal(parseModelPattern(text), undefined, text);
});

function never(): never {
	throw new Error("no name");
}

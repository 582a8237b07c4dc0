import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { startGate, type TestGate, testKeys } from "../support/gate.ts";
import { send, startHost, startWithHosts } from "../support/hosts.ts";

const sha256 = digestOf(testKeys.user);
const limited: KeyEntry = {
	name: "limited",
	sha256,
	maxOptions: { num_predict: 100, num_keep: 10, keep_alive: "1h" },
};

const bodies: Readonly<Record<string, object>> = {
	"/v1/chat/completions": {
		model: "qwen3:8b",
		messages: [{ role: "user", content: "a" }],
	},
	"/v1/completions": { model: "qwen3:8b", prompt: "a" },
	"/v1/responses": { model: "qwen3:8b", input: "a" },
	"/v1/messages": {
		model: "qwen3:8b",
		max_tokens: 10,
		messages: [{ role: "user", content: "a" }],
	},
};

/** How a call with more in its body is answered. */
async function ask(
	gate: TestGate,
	more: object,
	path = "/v1/chat/completions",
): Promise<readonly [number, string]> {
	const body = { ...bodies[path], stream: false, ...more };
	const reply = await send(gate, { key: testKeys.user, path, body });
	return [reply.status, await reply.text()];
}

const tooMuch = [
	{ max_tokens: 101 },
	{ max_completion_tokens: 101 },
	{ max_output_tokens: 101 },
	{ n_predict: 101 },
	{ max_tokens: 100, max_completion_tokens: 101 },
	{ max_tokens: -1 },
	{ max_tokens: 0 },
	{ max_completion_tokens: 0.5 },
	{ n_predict: -1 },
	{ n_keep: 11 },
	{ n_keep: -1 },
	{ n: 2 },
	{ n_cmpl: 2 },
	{ best_of: 2 },
	{ ttl: 0 },
	{ ttl: -1 },
	{ ttl: 3_601 },
];
const unclear = [
	{ max_tokens: "101" },
	{ max_tokens: [101] },
	{ Max_Tokens: 101 },
	{ n: "2" },
	{ ttl: "soon" },
];
const good = [
	{},
	{ max_tokens: 100, max_completion_tokens: 1 },
	{ max_tokens: null, n: null },
	{ n: 1, best_of: 1 },
	{ ttl: 300 },
	{ tools: [], metadata: { max_tokens: "101", n: "2" } },
];

for (const path of Object.keys(bodies))
	t.test(
		`what num_predict limits is limited by its other names: ${path}`,
		async (t) => {
			const gate = await startGate(t, { keys: [limited] });
			for (const more of tooMuch) {
				const [status, said] = await ask(gate, more, path);
				t.equal(status, 403, JSON.stringify(more));
				t.match(said, 'the key \\"limited\\" may ');
			}
			for (const more of unclear)
				t.equal((await ask(gate, more, path))[0], 400, JSON.stringify(more));
			t.equal(gate.standIn.calls.length, 0, "nothing of it reached Ollama");
			for (const more of good) {
				// Anthropic's must be there.
				if (path === "/v1/messages" && "max_tokens" in more) continue;
				t.equal((await ask(gate, more, path))[0], 200, JSON.stringify(more));
			}
		},
	);

t.test("a host that speaks /v1 alone is held to them, too", async (t) => {
	const host = await startHost(t, "vllm");
	const upstreams = [{ name: "vllm", url: host.url, kind: "openai" }];
	const gate = await startWithHosts(t, upstreams, { keys: [limited] });
	for (const more of tooMuch)
		t.equal((await ask(gate, more))[0], 403, JSON.stringify(more));
	t.equal(host.prompts(), 0);
	t.equal((await ask(gate, { max_tokens: 100 }))[0], 200);
	t.equal(host.prompts(), 1);
});

t.test("a list of prompts asks for as many answers", async (t) => {
	const gate = await startGate(t, { keys: [limited] });
	const path = "/v1/completions";
	const lists = [["a", "b"], ["a"], [], [1, 2], [[1], [2]], { text: "a" }];
	for (const prompt of lists)
		t.match(
			await ask(gate, { prompt }, path),
			[403, /one prompt at a time, as a text/],
			JSON.stringify(prompt),
		);
	const [status] = await ask(gate, { prompt: undefined, Prompt: ["a"] }, path);
	t.equal(status, 400, "spelt otherwise");
	t.equal(gate.standIn.calls.length, 0, "nothing of it reached Ollama");
	for (const prompt of ["a", "a".repeat(100_000), '["a","b"]', null, 1])
		t.equal((await ask(gate, { prompt, suffix: "b" }, path))[0], 200);
	const more = { metadata: { prompt: ["a"] }, logit_bias: {} };
	t.equal((await ask(gate, more, path))[0], 200, "only at the top");
	t.equal(
		(await ask(gate, { prompt: { id: "a" } }, "/v1/responses"))[0],
		200,
		"other calls have something else by that name",
	);
	const free: KeyEntry = { name: "free", sha256, models: ["qwen3:*"] };
	await gate.writeKeys([free]);
	await gate.daemon.reload();
	t.equal((await ask(gate, { prompt: ["a", "b"] }, path))[0], 200);
});

t.test("what may not be set may not be set by another name", async (t) => {
	const denying: KeyEntry = {
		name: "denying",
		sha256,
		denyOptions: ["num_predict"],
	};
	const gate = await startGate(t, { keys: [denying] });
	t.match(await ask(gate, { max_tokens: 1 }), [
		403,
		/may not set max_tokens \(num_predict\)/,
	]);
	t.match(await ask(gate, { n: 2 }), [403, /one answer at a time \(n\)/]);
	t.match(await ask(gate, { ttl: 0, n: 1 }), [200]);
	t.equal((await ask(gate, {}, "/v1/messages"))[0], 403);
});

t.test("a key is asked for none of it that has no such rule", async (t) => {
	const free: KeyEntry = { name: "free", sha256 };
	const gate = await startGate(t, { keys: [free] });
	for (const more of [...tooMuch, { Max_Tokens: 101 }])
		t.equal((await ask(gate, more))[0], 200, JSON.stringify(more));
	await gate.writeKeys([{ ...free, models: ["qwen3:*"] }]);
	await gate.daemon.reload();
	for (const more of [{ max_tokens: 101, n: 2 }, { n_keep: -1 }, { ttl: 300 }])
		t.equal((await ask(gate, more))[0], 200, JSON.stringify(more));
	t.match(await ask(gate, { ttl: 7_200 }), [
		403,
		/may set ttl \(keep_alive\) to 3600 s at the most/,
	]);
	t.match(await ask(gate, { ttl: 0 }), [403, /may not unload a model for all/]);
});

t.test("Ollama's own calls read none of these names", async (t) => {
	const gate = await startGate(t, { keys: [limited] });
	const reply = await send(gate, {
		key: testKeys.user,
		body: { model: "qwen3:8b", messages: [], stream: false, max_tokens: 101 },
	});
	t.equal(reply.status, 200);
});

import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { testEntries, testKeys } from "../support/gate.ts";
import { errorOf, send, startHost, startWithHosts } from "../support/hosts.ts";
import { startPlainHost } from "../support/plainHost.ts";

/** What a client with a good key would send to get more of several hosts than the key may. */

const few = testKeys.wrong;
const keys = [
	...testEntries,
	{ name: "few", sha256: digestOf(few), models: ["qwen3:*", "plain"] },
];
const messages = [{ role: "user", content: "hi" }];

/** llama.cpp's server answers with the model that it runs, whatever it is asked for. */
const startAnyModel = (
	t: Parameters<typeof startHost>[0],
	models = ["secret-70b.gguf"],
	mayTell?: () => Promise<void> | undefined,
) =>
	startPlainHost(
		t,
		models,
		() => ({ body: { model: "secret-70b.gguf", choices: [] } }),
		mayTell,
	);

const calls: Readonly<Record<string, (model: object) => object>> = {
	"/v1/chat/completions": (model) => ({ ...model, messages }),
	"/v1/completions": (model) => ({ ...model, prompt: "hi" }),
	"/v1/embeddings": (model) => ({ ...model, input: "hi" }),
	"/v1/responses": (model) => ({ ...model, input: "hi" }),
	"/v1/messages": (model) => ({ ...model, messages, max_tokens: 1 }),
};

for (const [path, bodyOf] of Object.entries(calls))
	t.test(
		`a key for some models gets none of the others at ${path} by a name that no host has`,
		async (t) => {
			const a = await startHost(t, "a", { models: ["qwen3:8b"] });
			const any = await startAnyModel(t);
			const gate = await startWithHosts(
				t,
				[
					{ name: "any", url: any.url, kind: "openai", weight: 100 },
					{ name: "a", url: a.url },
				],
				{ keys },
			);
			const ask = (model: object, key = few) =>
				send(gate, { key, path, body: bodyOf(model) });
			t.equal((await ask({ model: "secret-70b.gguf" })).status, 403);
			for (const model of [
				{ model: "qwen3:none" },
				{ model: "qwen3:8b-none" },
				// Fields that Ollama reads in other calls, and no model where it counts.
				{ name: "qwen3:8b" },
				{ model: "", name: "qwen3:8b" },
				{ model: null, from: "qwen3:8b" },
			]) {
				const reply = await ask(model);
				t.not(reply.status, 200, JSON.stringify(model));
				t.notOk((await reply.text()).includes("secret"));
			}
			t.strictSame(any.prompts, []);
			const may = await ask({ model: "secret-70b.gguf" }, testKeys.owner);
			t.equal(may.status, 200);
		},
	);

t.test("nor by the form of an audio file", async (t) => {
	const any = await startAnyModel(t);
	const gate = await startWithHosts(
		t,
		[{ name: "any", url: any.url, kind: "openai" }],
		{ keys },
	);
	const form = new FormData();
	form.append("model", "qwen3:none");
	form.append("file", new Blob(["sound"]), "a.wav");
	const reply = await fetch(`${gate.url}/v1/audio/transcriptions`, {
		method: "POST",
		headers: { authorization: `Bearer ${few}` },
		body: form,
	});
	t.equal(reply.status, 404);
	t.strictSame(any.prompts, []);
});

t.test(
	"nor by another spelling of a name, which such a host does not know",
	async (t) => {
		const any = await startAnyModel(t, ["plain", "secret-70b.gguf"]);
		const gate = await startWithHosts(
			t,
			[{ name: "any", url: any.url, kind: "openai" }],
			{ keys },
		);
		const ask = (model: string) =>
			send(gate, {
				key: few,
				path: "/v1/chat/completions",
				body: { model, messages },
			});
		for (const model of ["PLAIN", "plain:latest", "library/plain", " plain"]) {
			const reply = await ask(model);
			t.equal(reply.status, 404, model);
			t.match(await errorOf(reply), "has the model");
		}
		t.strictSame(any.prompts, []);
		t.equal((await ask("plain")).status, 200);
	},
);

t.test("nor where the host's own patterns leave the name out", async (t) => {
	const any = await startAnyModel(t, ["qwen3:8b", "secret-70b.gguf"]);
	const a = await startPlainHost(t, ["qwen3:8b"], () => ({
		body: { model: "llama", done: true },
	}));
	const gate = await startWithHosts(
		t,
		[
			{ name: "any", url: any.url, kind: "openai", models: ["other:*"] },
			{ name: "a", url: a.url, models: ["llama3.2:*"] },
		],
		{ keys },
	);
	for (const path of ["/v1/chat/completions", "/api/chat"]) {
		const reply = await send(gate, {
			key: few,
			path,
			body: { model: "qwen3:8b", messages },
		});
		t.equal(reply.status, 404);
		t.match(await errorOf(reply), 'has the model "qwen3:8b"');
	}
	t.strictSame([any.prompts, a.prompts], [[], []]);
});

t.test("nor before a host has said what it has", async (t) => {
	let tell = () => {};
	const told = new Promise<void>((resolve) => {
		tell = resolve;
	});
	const any = await startAnyModel(t, ["qwen3:8b"], () => told);
	const gate = await startWithHosts(
		t,
		[{ name: "any", url: any.url, kind: "openai" }],
		{ keys },
		false,
	);
	const ask = () =>
		send(gate, {
			key: few,
			path: "/v1/chat/completions",
			body: { model: "qwen3:8b", messages },
		});
	const reply = await ask();
	t.equal(reply.status, 502);
	t.match(await errorOf(reply), "any has not said yet what it has");
	t.strictSame(any.prompts, []);
	tell();
});

t.test(
	"a host's own list names no model that the key may not see",
	async (t) => {
		const any = await startAnyModel(t, ["plain", "secret-70b.gguf"]);
		const gate = await startWithHosts(
			t,
			[{ name: "any", url: any.url, kind: "openai" }],
			{ keys },
		);
		for (const headers of [{}, { "x-llamagate-upstream": "any" }]) {
			const list = await send(gate, {
				key: few,
				path: "/v1/models",
				method: "GET",
				headers,
			});
			const text = await list.text();
			t.match(JSON.parse(text), { object: "list", data: [{ id: "plain" }] });
			t.notOk(text.includes("secret"));
		}
	},
);

import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { keepAliveSeconds } from "../../src/ollama/options.ts";
import { bearer, startGate, testEntries, testKeys } from "../support/gate.ts";

const models = [
	"qwen3:8b",
	"llama3.2:3b",
	"nomic-embed-text:latest",
	"gpt-oss:120b-cloud",
];

/** A key that may use qwen3 and the embedding model, with every scope. */
const restricted = {
	name: "restricted",
	sha256: digestOf(testKeys.user),
	scopes: ["read", "infer", "manage"] as const,
	models: ["qwen3:*", "nomic-embed-text"],
};

async function start(t: Parameters<typeof startGate>[0], more: object = {}) {
	const gate = await startGate(t, {
		standIn: { models },
		keys: [
			{ ...restricted, ...more },
			...testEntries.filter(({ name }) => name !== "user"),
		],
	});
	const send = async (
		path: string,
		body: string | Buffer | object,
		method = "POST",
	) => {
		const response = await fetch(`${gate.url}${path}`, {
			method,
			headers: bearer(testKeys.user),
			...(method === "GET"
				? {}
				: {
						body:
							typeof body === "string" || Buffer.isBuffer(body)
								? new Uint8Array(Buffer.from(body))
								: JSON.stringify(body),
					}),
		});
		return { status: response.status, text: await response.text() };
	};
	return { gate, send };
}

t.test(
	"a key with models uses those, by whatever name, and no other",
	async (t) => {
		const { gate, send } = await start(t);
		for (const model of [
			"qwen3:8b",
			"QWEN3:8B",
			"library/qwen3:8b",
			"registry.ollama.ai/library/qwen3:8b",
		]) {
			// The stand-in does not know every spelling, as long as the gate lets it through.
			const { status } = await send("/api/chat", {
				model,
				messages: [{ role: "user", content: "a" }],
				stream: false,
			});
			t.ok(status === 200 || status === 404, `${model}: ${status}`);
		}
		t.equal(gate.standIn.calls.length, 4);
		for (const model of [
			"llama3.2:3b",
			"llama3.2",
			"me/qwen3:8b",
			"hf.co/library/qwen3:8b",
			"qwen3:8b-cloud",
			"qwen3:cloud",
			"gpt-oss:120b-cloud",
		]) {
			const { status, text } = await send("/api/chat", {
				model,
				messages: [{ role: "user", content: "a" }],
			});
			t.equal(status, 403, model);
			t.match(text, /may not use the model/);
			t.match(
				text,
				"it may use qwen3:*, nomic-embed-text:latest",
				"each with the tag that it means",
			);
		}
		for (const model of ["qwen3:8b\u0000", "qwen3 8b", "a/b/c/d"])
			t.equal(
				(await send("/api/chat", { model })).status,
				400,
				JSON.stringify(model),
			);
		t.equal(gate.standIn.calls.length, 4, "nothing else reached Ollama");
	},
);

t.test(
	"every call that names a model is judged by every name in it",
	async (t) => {
		const { gate, send } = await start(t);
		const cases: [string, object, string?][] = [
			["/api/generate", { model: "llama3.2:3b" }],
			["/api/embed", { model: "llama3.2:3b", input: "a" }],
			["/api/embeddings", { model: "llama3.2:3b", prompt: "a" }],
			[
				"/v1/chat/completions",
				{ model: "llama3.2:3b", messages: [{ role: "user", content: "a" }] },
			],
			["/v1/completions", { model: "llama3.2:3b", prompt: "a" }],
			["/v1/embeddings", { model: "llama3.2:3b", input: "a" }],
			["/v1/responses", { model: "llama3.2:3b", input: "a" }],
			[
				"/v1/messages",
				{
					model: "llama3.2:3b",
					messages: [{ role: "user", content: "a" }],
					max_tokens: 1,
				},
			],
			["/api/show", { name: "llama3.2:3b" }],
			["/api/show", { model: "", name: "llama3.2:3b" }],
			["/api/pull", { name: "llama3.2:3b" }],
			["/api/push", { model: "llama3.2:3b" }],
			["/api/create", { model: "qwen3:mine", from: "llama3.2:3b" }],
			["/api/create", { model: "llama3.2:3b", from: "qwen3:8b" }],
			["/api/copy", { source: "llama3.2:3b", destination: "qwen3:copy" }],
			["/api/copy", { source: "qwen3:8b", destination: "llama3.2:3b" }],
			["/api/delete", { model: "llama3.2:3b" }, "DELETE"],
			["/api/delete", { model: "qwen3:8b", name: "llama3.2:3b" }, "DELETE"],
		];
		for (const [path, body, method] of cases)
			t.equal(
				(await send(path, body, method)).status,
				403,
				`${path} ${JSON.stringify(body)}`,
			);
		t.equal((await send("/v1/models/llama3.2:3b", "", "GET")).status, 403);
		t.equal(
			(await send("/api/chat", { messages: [{ role: "user", content: "a" }] }))
				.status,
			400,
			"no model at all",
		);
		t.equal(gate.standIn.calls.length, 0);
		t.equal((await send("/v1/models/qwen3:8b", "", "GET")).status, 200);
		t.equal(
			(
				await send("/api/copy", {
					source: "qwen3:8b",
					destination: "qwen3:copy",
				})
			).status,
			200,
		);
	},
);

t.test(
	"a body that Ollama would read otherwise is refused, and says which field",
	async (t) => {
		const { gate, send } = await start(t);
		const bodies: [string | Buffer, RegExp][] = [
			[
				'{"model":"qwen3","name":"My Chat"}',
				/the model in the body's \\?"name/,
			],
			['{"model":"My Chat"}', /the model in the body is not a name/],
			['{"model":"qwen3:8b","model":"llama3.2:3b"}', /model\\" twice/],
			['{"model":"qwen3:8b","MODEL":"llama3.2:3b"}', /MODEL/],
			['{"model":"qwen3:8b","Model":"llama3.2:3b"}', /Model/],
			['{"model":"qwen3:8b","mode\\u006c":"llama3.2:3b"}', /twice/],
			['{"model":"qwen3:8b"}{"model":"llama3.2:3b"}', /something follows/],
			['{"model":"llama3.2:3b"}{"model":"qwen3:8b"}', /something follows/],
			['\ufeff{"model":"qwen3:8b"}', /byte order mark/],
			[
				Buffer.concat([
					Buffer.from('{"model":"qwen3:8b","a":"'),
					Buffer.from([0xff]),
					Buffer.from('"}'),
				]),
				/UTF-8/,
			],
			['{"model":["qwen3:8b"]}', /not a string/],
			['{"model":{"a":1}}', /not a string/],
			['{"model":1}', /not a string/],
			[`{"model":"qwen3:8b","a":${"[".repeat(10_000)}`, /nests deeper/],
			['{"model":"qwen3:8b"', /not complete/],
			["[]", /not a JSON object/],
			["model=qwen3:8b", /not/],
		];
		for (const [body, message] of bodies) {
			const { status, text } = await send("/api/chat", body);
			t.equal(status, 400, String(body).slice(0, 60));
			t.match(text, message);
		}
		t.equal(gate.standIn.calls.length, 0, "none of them reached Ollama");
	},
);

t.test(
	"an allowed body goes upstream byte for byte, large and in chunks too",
	async (t) => {
		const { gate } = await start(t);
		const body = `{ "messages":[{"role":"user","content":"\\u00e9 12345678901234567890","images":["${"A".repeat(3_000_000)}"]}],\n"seed":9007199254740993, "model" : "qwen3:8b" , "stream":false}`;
		async function* pieces() {
			for (let at = 0; at < body.length; at += 70_001)
				yield Buffer.from(body.slice(at, at + 70_001));
		}
		for (const sent of [body, ReadableStream.from(pieces())]) {
			const response = await fetch(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: sent,
				duplex: "half",
			});
			t.equal(response.status, 200);
			await response.text();
			t.equal(gate.standIn.calls.at(-1)?.body.toString(), body);
		}
	},
);

t.test("lists show a restricted key its own models only", async (t) => {
	const { gate, send } = await start(t);
	const tags = await send("/api/tags", "", "GET");
	t.strictSame(
		JSON.parse(tags.text).models.map(({ name }: { name: string }) => name),
		["qwen3:8b", "nomic-embed-text:latest"],
	);
	const openai = await send("/v1/models", "", "GET");
	t.strictSame(
		JSON.parse(openai.text).data.map(({ id }: { id: string }) => id),
		["qwen3:8b", "nomic-embed-text:latest"],
	);
	t.strictSame(JSON.parse((await send("/api/ps", "", "GET")).text), {
		models: [],
	});
	const all = await fetch(`${gate.url}/api/tags`, {
		headers: bearer(testKeys.owner),
	});
	t.equal(
		((await all.json()) as { models: unknown[] }).models.length,
		models.length,
		"others see them all",
	);
});

t.test("a list that cannot be read is not shown", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "wrong-length" },
		keys: [restricted],
	});
	const response = await fetch(`${gate.url}/api/tags`, {
		headers: bearer(testKeys.user),
	});
	t.equal(response.status, 502);
});

t.test("cloud models need a pattern of their own", async (t) => {
	const { send } = await start(t, { models: ["*"] });
	t.equal(
		(
			await send("/api/chat", {
				model: "gpt-oss:120b-cloud",
				messages: [{ role: "user", content: "a" }],
				stream: false,
			})
		).status,
		403,
	);
	t.equal(
		(
			await send("/api/chat", {
				model: "llama3.2:3b",
				messages: [{ role: "user", content: "a" }],
				stream: false,
			})
		).status,
		200,
	);
	const other = await start(t, { models: ["*", "gpt-oss:*-cloud"] });
	t.equal(
		(
			await other.send("/api/chat", {
				model: "gpt-oss:120b-cloud",
				messages: [{ role: "user", content: "a" }],
				stream: false,
			})
		).status,
		200,
	);
});

t.test("a form's model is judged like any other", async (t) => {
	const { gate } = await start(t);
	const post = async (...fields: [string, string][]) => {
		const form = new FormData();
		for (const [name, value] of fields) form.append(name, value);
		form.append("file", new Blob(["sound"]), "a.wav");
		return (
			await fetch(`${gate.url}/v1/audio/transcriptions?model=llama3.2:3b`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: form,
			})
		).status;
	};
	t.equal(await post(["model", "llama3.2:3b"]), 403);
	t.equal(await post(["model", "qwen3:8b"], ["model", "llama3.2:3b"]), 400);
	t.equal(await post(["model", "qwen3:8b"], ["MODEL", "llama3.2:3b"]), 400);
	t.equal(await post(), 400);
	t.equal(gate.standIn.calls.length, 0);
	t.equal(await post(["model", "qwen3:8b"]), 200);
	t.equal(
		gate.standIn.calls[0]?.target,
		"/v1/audio/transcriptions",
		"and the query's is gone",
	);
});

t.test(
	"what would hurt everybody is kept from a restricted key unless its entry says otherwise",
	async (t) => {
		const { gate, send } = await start(t);
		const chat = (more: object) =>
			send("/api/chat", {
				model: "qwen3:8b",
				messages: [{ role: "user", content: "a" }],
				stream: false,
				...more,
			});
		for (const more of [
			{ keep_alive: 0 },
			{ keep_alive: "0" },
			{ keep_alive: "0s" },
			{ keep_alive: -1 },
			{ keep_alive: "-1m" },
			{ keep_alive: "24h" },
			{ keep_alive: 1e300 },
			{ keep_alive: 1e-10 },
			{ keep_alive: -1e-10 },
			{ keep_alive: 0.001 },
			{ keep_alive: "0.1ns" },
			{ keep_alive: "-0.1ns" },
			{ keep_alive: "1\u00b5s" },
			{ keep_alive: "1\u03bcs" },
			{ keep_alive: "999ms" },
			{ options: { draft_num_predict: 0 } },
			{ shift: false },
			{ shift: true },
			{ options: { num_ctx: -1 } },
			{ options: { num_gpu: 0 } },
			{ options: { use_mmap: false } },
			{ options: { num_ctx: 1_000_000 } },
		])
			t.equal((await chat(more)).status, 403, JSON.stringify(more));
		for (const more of [
			{ keep_alive: "soon" },
			{ keep_alive: "9999999h" },
			{ Shift: false },
			{ keep_alive: true },
			{ options: { num_ctx: "4096" } },
			{ options: { num_ctx: [1] } },
		])
			t.equal((await chat(more)).status, 400, JSON.stringify(more));
		t.equal(gate.standIn.calls.length, 0);
		for (const more of [
			{ keep_alive: "5m" },
			{ keep_alive: 300 },
			{ keep_alive: 1 },
			{ keep_alive: "1000ms" },
			{ keep_alive: "1000000\u03bcs" },
			{ shift: null },
			{ options: { NUM_CTX: 1_000_000, Num_Gpu: 0 } },
			{ keep_alive: null },
			{ options: { num_ctx: 8192, temperature: 0.1 } },
			{ options: null },
		])
			t.equal((await chat(more)).status, 200, JSON.stringify(more));
		const free = await start(t, { denyOptions: [], maxOptions: {} });
		t.equal(
			(
				await free.send("/api/chat", {
					model: "qwen3:8b",
					messages: [{ role: "user", content: "a" }],
					stream: false,
					keep_alive: -1,
					options: { num_gpu: 0 },
				})
			).status,
			200,
		);
	},
);

t.test(
	"options can be held down for a key that may use every model",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{
					name: "a",
					sha256: digestOf(testKeys.user),
					denyOptions: ["keep_alive"],
					maxOptions: { num_ctx: 4096, num_predict: 100, num_thread: 2 },
				},
			],
		});
		const status = async (body: object) =>
			(
				await fetch(`${gate.url}/api/chat`, {
					method: "POST",
					headers: bearer(testKeys.user),
					body: JSON.stringify({ model: "qwen3:8b", stream: false, ...body }),
				})
			).status;
		t.equal(await status({ keep_alive: "1m" }), 403);
		t.equal(await status({ options: { num_ctx: 4097 } }), 403);
		t.equal(await status({ options: { num_ctx: 4096 } }), 200);
		for (const amount of [0, 0.9, -0, 1e-300]) {
			t.equal(await status({ options: { num_predict: amount } }), 403);
			t.equal(await status({ options: { num_thread: amount } }), 403);
		}
		t.equal(await status({ options: { num_predict: 1, num_thread: 1 } }), 200);
		t.equal(await status({ options: { num_ctx: 0 } }), 200);
	},
);

t.test("keep_alive is read as Go reads it", async (t) => {
	const cases: [string | number, number | undefined][] = [
		[5, 5],
		[-1, -1],
		["5m", 300],
		["1h30m", 5400],
		["1.5h", 5400],
		[".5s", 0.5],
		["0", 0],
		["-1", undefined],
		["-5m", -300],
		["", undefined],
		["5", undefined],
		["5 m", undefined],
		["1d", undefined],
		["1\u00b5s", 1e-6],
		["1\u03bcs", 1e-6],
		["9223372036s", 9_223_372_036],
		["9223372037s", undefined],
		["9999999h", undefined],
		["-9999999h", undefined],
		["+1m", 60],
		["-0", 0],
		["1.s", 1],
		[".s", undefined],
		["1s ", undefined],
	];
	for (const [value, seconds] of cases)
		t.equal(keepAliveSeconds(value), seconds, JSON.stringify(value));
});

t.test(
	"a key without rules is not looked into: even what is not JSON goes through to Ollama",
	async (t) => {
		const { gate } = await start(t);
		const response = await fetch(`${gate.url}/api/chat`, {
			method: "POST",
			headers: bearer(testKeys.owner),
			body: '{"model":"qwen3:8b","MODEL":',
		});
		t.equal(response.status, 400);
		t.equal(gate.standIn.calls.length, 1, "it was Ollama that refused it");
	},
);

t.test(
	"the stand-in reads bodies as Go does, so that a bypass would be seen",
	async (t) => {
		const { gate } = await start(t);
		const reads: [string, number][] = [
			['{"model":"nope","MODEL":"qwen3:8b","stream":false}', 200],
			['{"model":"qwen3:8b","Model":"nope"}', 404],
			['{"model":"qwen3:8b","model":"nope"}', 404],
			['{"model":"qwen3:8b","stream":false}{"model":"nope"}', 200],
			['{"model":"nope"}{"model":"qwen3:8b"}', 404],
		];
		for (const [body, status] of reads) {
			const response = await fetch(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.owner),
				body,
			});
			await response.text();
			t.equal(response.status, status, body);
		}
	},
);

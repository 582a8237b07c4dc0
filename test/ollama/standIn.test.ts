import { request } from "node:http";
import { hostname } from "node:os";
import { zstdCompressSync } from "node:zlib";
import t from "tap";
import { type StandInOptions, startStandIn } from "../../src/ollama/standIn.ts";

/*
 * The stand-in by its own options. test/contract has what it must do as the
 * real Ollama does it.
 */

async function start(
	t: { teardown(action: () => unknown): unknown },
	options: StandInOptions = {},
) {
	const standIn = await startStandIn({
		models: ["smol:latest"],
		...options,
	});
	t.teardown(() => standIn.close());
	const call = async (
		method: string,
		path: string,
		body?: object | string | Buffer,
		headers: Record<string, string> = {},
	) => {
		const response = await fetch(`${standIn.url}${path}`, {
			method,
			headers,
			...(body === undefined
				? {}
				: {
						body:
							typeof body === "string"
								? body
								: Buffer.isBuffer(body)
									? new Uint8Array(body)
									: JSON.stringify(body),
					}),
		});
		return { status: response.status, text: await response.text() };
	};
	return { standIn, call };
}

/** The events of a stream: their names, and their data. */
function eventsOf(text: string): { name: string | undefined; data: string }[] {
	return text
		.trimEnd()
		.split("\n\n")
		.map((block) => ({
			name: /^event: (.*)$/m.exec(block)?.[1],
			data: /^data: (.*)$/m.exec(block)?.[1] ?? "",
		}));
}

t.test("a known path with another method is 405", async (t) => {
	const { call } = await start(t);
	for (const [method, path] of [
		["GET", "/api/generate"],
		["HEAD", "/api/ps"],
		["DELETE", "/api/tags"],
	] as const)
		t.equal((await call(method, path)).status, 405, `${method} ${path}`);
	t.equal((await call("GET", "/api/no")).status, 404);
});

t.test("a Host is local by its name or its address", async (t) => {
	const { standIn } = await start(t);
	const statusOf = (host: string) =>
		new Promise<number | undefined>((resolve, reject) =>
			request(
				{ port: standIn.port, path: "/", headers: { host } },
				(response) => {
					response.resume();
					resolve(response.statusCode);
				},
			)
				.on("error", reject)
				.end(),
		);
	for (const host of [
		"127.0.0.1:11434",
		"localhost",
		"[::1]:11434",
		"a.local",
		hostname(),
		`${hostname().toUpperCase()}:1`,
		"10.1.2.3",
	])
		t.equal(await statusOf(host), 200, host);
	for (const host of [
		"[::1]",
		"gpu-box.lan",
		"100.64.0.1",
		"a.local.",
		"8.8.8.8",
	])
		t.equal(await statusOf(host), 403, host);
});

t.test("requests without a model or a body are told apart", async (t) => {
	const { call } = await start(t);
	t.match(await call("POST", "/api/generate", {}), {
		status: 404,
		text: /model '' not found/,
	});
	t.match(await call("POST", "/api/generate", ""), {
		status: 400,
		text: /missing request body/,
	});
	t.match(await call("POST", "/v1/messages", { ...ask, model: "no" }), {
		status: 404,
		text: /"request_id":"req_/,
	});
	t.equal((await call("POST", "/api/me")).status, 503);
});

t.test("a model is found by every spelling of its name", async (t) => {
	const { call } = await start(t);
	for (const model of [
		"smol",
		"SMOL:Latest",
		"library/smol",
		"http://registry.ollama.ai/library/smol",
		" smol ",
		"smol:local",
	])
		t.equal((await call("POST", "/api/show", { model })).status, 200, model);
	for (const model of ["me/smol", "smol:8b"])
		t.equal((await call("POST", "/api/show", { model })).status, 404, model);
	t.equal(
		(await call("POST", "/api/show", { model: "smol:cloud" })).status,
		502,
		"which ollama.com serves",
	);
	t.equal((await call("GET", "/v1/models/SMOL")).status, 200);
});

t.test(
	"zstd is unpacked on /v1, frame behind frame, and nowhere else",
	async (t) => {
		const { call } = await start(t);
		const packed = (text: string) => zstdCompressSync(Buffer.from(text));
		const chat = JSON.stringify({ ...ask, stream: false });
		const status = async (path: string, body: Buffer, coding = "zstd") =>
			(await call("POST", path, body, { "content-encoding": coding })).status;
		t.equal(await status("/v1/chat/completions", packed(chat)), 200);
		t.equal(
			await status("/v1/messages", Buffer.concat([packed(" "), packed(chat)])),
			200,
		);
		t.equal(await status("/v1/chat/completions", packed(chat), "ZSTD"), 400);
		t.equal(await status("/api/chat", packed(chat)), 400);
	},
);

const count = { max_tokens: 3, max_output_tokens: 3 };
const ask = {
	model: "smol",
	messages: [{ role: "user", content: "a" }],
	input: "a",
	stream: true,
	...count,
};

t.test(
	"OpenAI's streams name the role once, and usage in their own ways",
	async (t) => {
		const { call } = await start(t);
		const chunks = async (path: string) =>
			eventsOf(
				(
					await call("POST", path, {
						...ask,
						stream_options: { include_usage: true },
					})
				).text,
			);
		const chat = await chunks("/v1/chat/completions");
		t.equal(chat.at(-1)?.data, "[DONE]");
		const deltas = chat.slice(0, -1).map(({ data }) => JSON.parse(data));
		t.strictSame(
			deltas.map(({ choices }) =>
				Object.keys(choices[0]?.delta ?? { usage: 1 }),
			),
			[["role", "content"], ["content"], ["content"], [], ["usage"]],
		);
		t.equal(deltas.at(-1).usage.prompt_tokens_details.cached_tokens, 0);
		t.equal(deltas.filter(({ usage }) => usage !== undefined).length, 1);
		const completions = (await chunks("/v1/completions"))
			.slice(0, -1)
			.map(({ data }) => JSON.parse(data));
		t.strictSame(
			completions.map(({ usage }) => usage.completion_tokens),
			[0, 0, 0, 0, 3],
		);
	},
);

t.test(
	"responses come in nine kinds of events, with type as the last key",
	async (t) => {
		const { call } = await start(t);
		const { text } = await call("POST", "/v1/responses", {
			...ask,
			instructions: "be short",
			tools: [{ type: "function", name: "f" }],
		});
		const events = eventsOf(text);
		t.strictSame(
			events.map(({ name }) => name?.replace("response.", "")),
			[
				"created",
				"in_progress",
				"output_item.added",
				"content_part.added",
				...Array.from({ length: 3 }, () => "output_text.delta"),
				"output_text.done",
				"content_part.done",
				"output_item.done",
				"completed",
			],
		);
		for (const [number, { name, data }] of events.entries()) {
			const event = JSON.parse(data);
			t.equal(Object.keys(event).at(-1), "type", `${name}`);
			t.equal(event.type, name);
			t.equal(event.sequence_number, number);
		}
		for (const at of [0, 1, -1])
			t.match(JSON.parse(events.at(at)?.data ?? ""), {
				response: { instructions: "be short", tools: [{ name: "f" }] },
			});
	},
);

t.test("messages begin with an estimate and end with the counts", async (t) => {
	const { call } = await start(t);
	const events = eventsOf((await call("POST", "/v1/messages", ask)).text);
	t.match(JSON.parse(events[0]?.data ?? ""), {
		message: { usage: { input_tokens: 1, output_tokens: 0 } },
	});
	t.match(JSON.parse(events.at(-2)?.data ?? ""), {
		type: "message_delta",
		usage: { cache_read_input_tokens: 0, output_tokens: 3 },
	});
});

t.test(
	"a runner that dies is an error line in Ollama's own API alone",
	async (t) => {
		const { call } = await start(t, { misbehave: () => "error-mid-stream" });
		const last = async (path: string) =>
			(await call("POST", path, ask)).text.trimEnd().split("\n").at(-1) ?? "";
		t.match(await last("/api/chat"), /^\{"error":"an error was encountered/);
		for (const path of ["/v1/chat/completions", "/v1/completions"]) {
			t.match(await last(path), /"model":""/, path);
			t.notMatch(await last(path), /error|DONE/, path);
		}
		for (const path of ["/v1/responses", "/v1/messages"])
			t.match(await last(path), /delta/, path);
	},
);

t.test("a model that embeds does that, and does not chat", async (t) => {
	const { call } = await start(t, { models: ["nomic-embed-text:latest"] });
	const model = "nomic-embed-text";
	t.match(await call("POST", "/api/embed", { model, input: ["a", "b"] }), {
		status: 200,
		text: /"embeddings":\[\[.*\],\[.*\]\],.*"prompt_eval_count":10\}$/,
	});
	t.match(await call("POST", "/v1/embeddings", { model, input: "a" }), {
		status: 200,
		text: /"object":"embedding"/,
	});
	t.match(await call("POST", "/api/chat", { ...ask, model }), {
		status: 400,
		text: '{"error":"\\"nomic-embed-text\\" does not support chat"}',
	});
});

t.test("a test sees what is loaded and who waits for it", async (t) => {
	const { standIn, call } = await start(t, {
		models: ["smol:latest", "other:latest"],
		...{ parallel: 1, maxLoadedModels: 1, loadMs: 20 },
	});
	const seen: string[] = [];
	for (const event of ["loading", "loaded", "unloaded"] as const)
		standIn.scheduler.events.on(event, () => seen.push(event));
	const body = { prompt: "a", stream: false, options: { num_predict: 1 } };
	const generate = (model: string) =>
		call("POST", "/api/generate", { model, ...body });
	await Promise.all([
		...[generate("smol"), generate("other"), generate("other")],
	]);
	t.strictSame(seen, [
		...["loading", "loaded", "unloaded", "loading", "loaded"],
	]);
	t.strictSame(
		standIn.scheduler.loaded().map(({ name }) => name),
		["other:latest"],
	);
	t.equal(standIn.scheduler.waiting(), 0);
	t.match(await generate("smol"), { status: 200 });
});

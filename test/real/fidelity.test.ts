import { createHash } from "node:crypto";
import { once } from "node:events";
import { type IncomingMessage, request } from "node:http";
import { zstdCompressSync } from "node:zlib";
import t from "tap";
import { routes } from "../../src/ollama/routes.ts";
import { bearer, startGate, testKeys } from "../support/gate.ts";
import { type RealOllama, startOllama } from "./ollama.ts";
import { ollamaVersions } from "./parts.ts";
import { record } from "./record.ts";

/** A request that is made of Ollama directly and through the gate. */
interface Call {
	readonly route: string;
	/** Where the route's path has a parameter. */
	readonly path?: string;
	readonly body?: unknown;
	readonly headers?: Readonly<Record<string, string>>;
	/** Done directly before each: what the call undoes or needs. */
	readonly before?: Omit<Call, "before">;
}

/** What may differ: of one connection, of one moment, and what the gate says of itself. */
const notCompared = [
	...["connection", "keep-alive", "date"],
	...["x-request-id", "x-accel-buffering", "x-content-type-options"],
	...["ratelimit-limit", "ratelimit-remaining", "ratelimit-reset"],
];

const prompt = "Count from one to five.";
const messages = [{ role: "user", content: prompt }];
/** The same words each time. */
const options = { temperature: 0, seed: 1, num_predict: 8 };
const native = { model: "smol", options };
const openai = { model: "smol", temperature: 0, seed: 1 };
const unknown = "nobody-has-this";
const blob = Buffer.from("a file that somebody uploads");
const digest = `sha256:${createHash("sha256").update(blob).digest("hex")}`;
const compressed = (body: unknown) => ({
	headers: { "content-encoding": "zstd" },
	body: zstdCompressSync(JSON.stringify(body)),
});

const calls: readonly Call[] = [
	{ route: "HEAD /" },
	{ route: "GET /" },
	{ route: "HEAD /api/version" },
	{ route: "GET /api/version" },
	{ route: "HEAD /api/tags" },
	{ route: "GET /api/tags" },
	{ route: "POST /api/show", body: { model: "smol" } },
	{ route: "POST /api/show", body: { model: unknown } },
	{ route: "GET /api/ps" },
	{ route: "GET /api/status" },
	{ route: "GET /v1/models" },
	{ route: "GET /v1/models/:model", path: "/v1/models/smol" },
	{ route: "GET /v1/models/:model", path: `/v1/models/${unknown}` },
	{ route: "GET /api/experimental/model-recommendations" },
	...[{}, { stream: false }, { model: unknown }, { format: 5 }].flatMap(
		(over) => [
			{ route: "POST /api/generate", body: { ...native, prompt, ...over } },
			{ route: "POST /api/chat", body: { ...native, messages, ...over } },
		],
	),
	{ route: "POST /api/chat", body: "{" },
	{
		route: "POST /api/generate",
		body: { model: "smol", options: { num_ctx: "x" } },
	},
	{ route: "POST /api/embed", body: { model: "smol", input: "a" } },
	{ route: "POST /api/embeddings", body: { model: "smol", prompt: "a" } },
	...[
		{ stream: true },
		{ stream: true, stream_options: { include_usage: true } },
		{ stream: false },
		{ model: unknown },
	].flatMap((over) => [
		{
			route: "POST /v1/chat/completions",
			body: { ...openai, messages, max_tokens: 8, ...over },
		},
		{
			route: "POST /v1/completions",
			body: { ...openai, prompt, max_tokens: 8, ...over },
		},
	]),
	...[{ stream: true }, { stream: false }, { model: unknown }].flatMap(
		(over) => [
			{
				route: "POST /v1/responses",
				body: { ...openai, input: prompt, max_output_tokens: 8, ...over },
			},
			{
				route: "POST /v1/messages",
				body: {
					model: "smol",
					temperature: 0,
					messages,
					max_tokens: 8,
					...over,
				},
			},
		],
	),
	{
		route: "POST /v1/chat/completions",
		...compressed({ ...openai, messages, max_tokens: 4 }),
	},
	{ route: "POST /v1/embeddings", body: { model: "smol", input: "a" } },
	{
		route: "POST /v1/responses/compact",
		body: { model: "smol", input: prompt },
	},
	{ route: "POST /v1/audio/transcriptions", body: {} },
	{ route: "POST /api/pull", body: { model: unknown, stream: false } },
	{ route: "POST /api/push", body: { model: unknown, stream: false } },
	{
		route: "POST /api/create",
		body: { model: "made", from: "smol", system: "Be brief." },
	},
	{ route: "POST /api/copy", body: { source: "smol", destination: "copied" } },
	{
		route: "DELETE /api/delete",
		body: { model: "gone" },
		before: {
			route: "POST /api/copy",
			body: { source: "smol", destination: "gone" },
		},
	},
	{ route: "DELETE /api/delete", body: { model: unknown } },
	{ route: "HEAD /api/blobs/:digest", path: `/api/blobs/${digest}` },
	{
		route: "POST /api/blobs/:digest",
		path: `/api/blobs/${digest}`,
		body: blob,
	},
	{ route: "POST /api/me", body: {} },
	{ route: "POST /api/signout", body: {} },
	{ route: "DELETE /api/user/keys/:key", path: "/api/user/keys/abc" },
	{ route: "POST /api/experimental/web_search", body: { query: "a" } },
	{
		route: "POST /api/experimental/web_fetch",
		body: { url: "http://localhost" },
	},
];

async function call(
	url: string,
	{ route, path, body, headers }: Call,
	key?: string,
) {
	const [method = "", routePath = ""] = route.split(" ");
	const bytes =
		body === undefined || typeof body === "string" || Buffer.isBuffer(body)
			? body
			: JSON.stringify(body);
	const sent = request(new URL(path ?? routePath, url), {
		method,
		agent: false,
		headers: {
			...(bytes === undefined
				? {}
				: {
						"content-type": "application/json",
						"content-length": Buffer.byteLength(bytes),
					}),
			...headers,
			...(key === undefined ? {} : bearer(key)),
		},
	});
	sent.end(bytes);
	const [reply] = (await once(sent, "response")) as [IncomingMessage];
	let text = "";
	for await (const piece of reply.setEncoding("utf8")) text += piece;
	const compared = Object.entries(reply.headers)
		.filter(([name]) => !notCompared.includes(name))
		// Times are longer and shorter numbers; the length has to be the body's all the same.
		.map(([name, value]) =>
			name === "content-length" && value === `${Buffer.byteLength(text)}`
				? [name, "right"]
				: [name, value],
		);
	return {
		status: reply.statusCode,
		headers: Object.fromEntries(compared),
		body: withoutIdsAndTimes(text),
	};
}

/** The same length and place do not count for these, everything around them does. */
function withoutIdsAndTimes(text: string): string {
	return text
		.replace(
			/"(id|item_id|request_id|\w+_at|created|\w*_duration)":("[^"]*"|\d+)/g,
			'"$1":_',
		)
		.replace(/127\.0\.0\.\d+:\d+->/g, "");
}

t.test("every route that the gate lets through is called here", async (t) => {
	const called = new Set(calls.map(({ route }) => route));
	t.strictSame(
		routes.map(({ id }) => id).filter((id) => !called.has(id)),
		[],
	);
	t.ok(calls.length >= 40);
});

for (const version of ollamaVersions)
	t.test(`Ollama ${version} says the same through the gate`, async (t) => {
		const ollama = await startOllama(t, { version });
		const gate = await startGate(t, { upstreamUrl: ollama.url });
		for (const one of calls) {
			const direct = () => callAfter(ollama, one, ollama.url);
			// The first loads the model, fills its cache, and makes what is made.
			await direct();
			t.strictSame(
				await callAfter(ollama, one, gate.url, testKeys.owner),
				await direct(),
				`${one.route} ${JSON.stringify(one.body ?? "").slice(0, 120)}`,
			);
		}
		if (t.passing())
			record("ollama", "Ollama, behind the gate", {
				version,
				ran: [
					`${calls.length} calls of all routes, directly and through the gate`,
				],
				differs: [],
			});
	});

async function callAfter(
	ollama: RealOllama,
	one: Call,
	url: string,
	key?: string,
) {
	if (one.before !== undefined) await call(ollama.url, one.before);
	return call(url, one, key);
}

import { once } from "node:events";
import { createServer, request, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Ollama } from "ollama";
import OpenAI from "openai";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import {
	bearer,
	eventually,
	type LogLine,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import { openRaw, post, shows, statusOf, within } from "../support/raw.ts";

const line = (value: unknown) => `${JSON.stringify(value)}\n`;
const event = (name: string, value: object) =>
	`event: ${name}\ndata: ${JSON.stringify({ ...value, type: name })}\n\n`;
/** Of which one was new and ten were in the cache. */
const messagesCounts = event("message_delta", {
	usage: {
		input_tokens: 1,
		cache_read_input_tokens: 10,
		output_tokens: 22,
	},
});
const isRequest = ({ msg }: LogLine) => msg === "request";
const ndjson = "application/x-ndjson";
const sse = "text/event-stream";

type Answer = (res: ServerResponse) => unknown;

/** A gate in front of an upstream that answers every request in the test's way. */
async function startBefore(
	t: { teardown(action: () => unknown): unknown },
	answer: Answer,
	config: Record<string, unknown> = {},
): ReturnType<typeof startGate> {
	const upstream = createServer((req, res) => {
		req.resume().on("end", () => answer(res));
	});
	await once(upstream.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		upstream.closeAllConnections();
		upstream.close();
	});
	const { port } = upstream.address() as AddressInfo;
	return startGate(t, { upstreamUrl: `http://127.0.0.1:${port}`, config });
}

function send(res: ServerResponse, type: string, text: string): void {
	res.writeHead(200, { "content-type": type });
	res.end(text);
}

async function call(gate: TestGate, path: string) {
	const response = await fetch(`${gate.url}${path}`, {
		method: "POST",
		headers: bearer(testKeys.owner),
		body: '{"model":"m"}',
	});
	let text = "";
	let broken: unknown;
	try {
		for await (const piece of (response.body ??
			[]) as AsyncIterable<Uint8Array>)
			text += Buffer.from(piece).toString();
	} catch (error) {
		broken = error;
	}
	return { response, text, broken };
}

const long = 'He said: "{\\"done\\":true}"\n\ndata: [DONE] '.repeat(50_000);
const created = event("response.created", {
	sequence_number: 0,
	response: { id: "resp_7", instructions: long.slice(0, 100_000), model: "m" },
});
const finished = (status: string) =>
	event(`response.${status}`, {
		sequence_number: 1,
		response: {
			id: "resp_7",
			status,
			model: "m",
			error: status === "failed" ? { message: "boom" } : null,
			output: [{ content: [{ type: "output_text", text: long }] }],
			usage: {
				input_tokens: 11,
				input_tokens_details: { cached_tokens: 10 },
				output_tokens: 22,
			},
		},
	});
const counts = { tokensIn: 11, tokensCached: 10, tokensOut: 22 };
const noCounts = { tokensIn: null, tokensCached: null, tokensOut: null };
const failedAtEnd = {
	outcome: "upstream_error",
	reason: "upstream_stream_error",
};

const wholeReplies: [
	string,
	string,
	string,
	string,
	Record<string, unknown>,
][] = [
	[
		"response.completed of megabytes",
		"/v1/responses",
		sse,
		created + finished("completed"),
		{ outcome: "ok", model: "m", ...counts },
	],
	[
		"response.incomplete",
		"/v1/responses",
		sse,
		created + finished("incomplete"),
		{ outcome: "ok", model: "m", ...counts },
	],
	[
		"response.failed",
		"/v1/responses",
		sse,
		created + finished("failed"),
		{ ...failedAtEnd, model: "m", ...counts },
	],
	[
		"a short response.failed",
		"/v1/responses",
		sse,
		event("response.failed", { response: { error: { message: "boom" } } }),
		failedAtEnd,
	],
	[
		"an error of megabytes on chat completions",
		"/v1/chat/completions",
		sse,
		`data: {"model":"m"}\n\ndata: ${JSON.stringify({ error: { message: long } })}\n\n`,
		{ ...failedAtEnd, model: "m", ...noCounts },
	],
	[
		"an error of vLLM, which writes [DONE] behind it",
		"/v1/chat/completions",
		sse,
		`data: {"model":"m"}\n\ndata: ${JSON.stringify({ error: { message: "boom", code: 500 } })}\n\ndata: [DONE]\n\n`,
		{ ...failedAtEnd, model: "m", ...noCounts },
	],
	[
		"an error of megabytes on messages",
		"/v1/messages",
		sse,
		event("message_start", { message: { model: "m" } }) +
			event("error", { error: { type: "api_error", message: long } }),
		{ ...failedAtEnd, model: "m", ...noCounts },
	],
	[
		"a native error line that quotes megabytes of a model's output",
		"/api/chat",
		ndjson,
		line({ model: "m", message: { content: "a" }, done: false }) +
			line({ error: `error parsing tool call: raw='${long}'` }),
		{ ...failedAtEnd, model: "m", ...noCounts },
	],
	[
		"a done line of megabytes without counts",
		"/api/chat",
		ndjson,
		line({ model: "m", message: { content: long }, done: true }),
		{ outcome: "ok", model: "m", ...noCounts },
	],
	[
		"messages whose prompt was in the cache",
		"/v1/messages",
		sse,
		event("message_start", {
			message: { model: "m", usage: { input_tokens: 9, output_tokens: 0 } },
		}) +
			messagesCounts +
			event("message_stop", {}),
		{ outcome: "ok", model: "m", ...counts },
	],
	[
		"messages of a server that writes [DONE] behind them",
		"/v1/messages",
		sse,
		event("message_start", { message: { model: "m" } }) +
			messagesCounts +
			event("message_stop", {}) +
			"data: [DONE]\n\n",
		{ outcome: "ok", model: "m", ...counts },
	],
];

for (const [what, path, type, text, logged] of wholeReplies)
	t.test(`${path}: ${what} ends a stream as Ollama ended it`, async (t) => {
		const gate = await startBefore(t, (res) => send(res, type, text));
		const reply = await call(gate, path);
		t.equal(reply.broken, undefined, "a clean end");
		t.ok(reply.text === text, "nothing is added or lost");
		t.match(await gate.logged(isRequest), logged);
	});

t.test("the counters add up cached tokens", async (t) => {
	const gate = await startBefore(
		t,
		(res) => send(res, sse, created + finished("completed")),
		{ admin: { metrics: "127.0.0.1:0" } },
	);
	await call(gate, "/v1/responses");
	await gate.logged(isRequest);
	const { body } = await askDaemon(`${gate.folder}/admin.sock`, "GET /metrics");
	t.match(body, /llamagate_prompt_tokens_total\{[^}]*\} 11\n/);
	t.match(body, /llamagate_cached_prompt_tokens_total\{[^}]*\} 10\n/);
});

const refusals: [number, string][] = [
	[400, "rejected"],
	[404, "rejected"],
	[429, "rejected"],
	[500, "upstream_error"],
	[503, "upstream_error"],
];
for (const [status, outcome] of refusals)
	t.test(
		`a ${status} of Ollama's own goes through and is logged as ${outcome}`,
		async (t) => {
			const gate = await startBefore(t, (res) => {
				res.writeHead(status, { "content-type": "application/json" });
				res.end('{"error":"no"}');
			});
			const reply = await call(gate, "/api/chat");
			t.equal(reply.response.status, status);
			t.equal(reply.text, '{"error":"no"}');
			const entry = await gate.logged(isRequest);
			t.match(entry, { outcome, status });
			t.equal(
				entry.reason,
				status < 500 ? undefined : "upstream_status",
				"and why",
			);
		},
	);

/** How an upstream leaves a stream in its middle. */
const breaks: [string, Answer, string][] = [
	["dies", (res) => res.socket?.resetAndDestroy(), "upstream_died"],
	["just ends", (res) => res.end(), "upstream_truncated"],
];

for (const [how, leave, reason] of breaks) {
	const breakOff = (res: ServerResponse, text: string, type = sse) => {
		res.writeHead(200, { "content-type": type });
		res.write(text, () => setTimeout(leave, 20, res));
	};

	t.test(
		`/v1/responses: when Ollama ${how}, response.failed and an error end the stream, cleanly`,
		async (t) => {
			const gate = await startBefore(t, (res) => breakOff(res, created));
			const reply = await call(gate, "/v1/responses");
			t.equal(reply.broken, undefined, "a clean end");
			const added = reply.text.slice(created.length);
			const [, failed = "", error = ""] =
				/^\n?event: response\.failed\ndata: (.*)\n\nevent: error\ndata: (.*)\n\n$/.exec(
					added,
				) ?? [];
			t.match(JSON.parse(failed), {
				type: "response.failed",
				sequence_number: 1,
				response: {
					id: "resp_7",
					status: "failed",
					model: "m",
					error: { code: "server_error", message: /^Ollama / },
				},
			});
			t.match(JSON.parse(error), {
				type: "error",
				sequence_number: 2,
				message: /^Ollama /,
				error: { message: /^Ollama / },
			});
			t.match(await gate.logged(isRequest), {
				outcome: "upstream_error",
				reason,
			});
		},
	);

	t.test(
		`when Ollama ${how}, OpenAI's library throws what went wrong`,
		async (t) => {
			const chunk = `data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"}}]}\n\n`;
			const gate = await startBefore(t, (res) =>
				breakOff(res, res.req.url === "/v1/responses" ? created : chunk),
			);
			const client = new OpenAI({
				baseURL: `${gate.url}/v1`,
				apiKey: testKeys.user,
				maxRetries: 0,
			});
			const drain = async (stream: AsyncIterable<unknown>) => {
				for await (const _ of stream);
			};
			await t.rejects(
				client.responses
					.create({ model: "m", input: "x", stream: true })
					.then(drain),
				{ message: /Ollama (?:closed|ended)/ },
				"responses",
			);
			await t.rejects(
				drain(client.responses.stream({ model: "m", input: "x" })),
				{ message: /Ollama (?:closed|ended)/ },
				"responses, with its helper",
			);
			await t.rejects(
				client.chat.completions
					.create({ model: "m", messages: [], stream: true })
					.then(drain),
				{ message: /Ollama (?:closed|ended)/ },
				"chat completions",
			);
		},
	);

	t.test(
		`when Ollama ${how}, its own library throws what went wrong`,
		async (t) => {
			const gate = await startBefore(t, (res) =>
				breakOff(res, line({ model: "m", done: false }), ndjson),
			);
			const client = new Ollama({
				host: gate.url,
				headers: bearer(testKeys.user),
			});
			const stream = await client.chat({
				model: "m",
				messages: [],
				stream: true,
			});
			await t.rejects(
				(async () => {
					for await (const _ of stream);
				})(),
				{ message: /Ollama (?:closed|ended)/ },
			);
		},
	);

	t.test(
		`an event stream's error stands alone before the cut when Ollama ${how}`,
		async (t) => {
			const gate = await startBefore(t, (res) =>
				breakOff(res, 'data: {"model":"m"}\n\n'),
			);
			const client = await openRaw(gate.port);
			client.write(
				post("/v1/chat/completions", '{"model":"m"}', shows(testKeys.user)),
			);
			await client.until((text) => text.includes("event: error"));
			// Without a delay the end is read in the next turns.
			for (let turn = 0; turn < 5; turn++)
				await new Promise((resolve) => setImmediate(resolve));
			t.notOk(client.isClosed(), "it can be read before the cut");
			// A request behind it has no answer, and opens no second stream.
			client.write(post("/api/chat", '{"model":"m"}', shows(testKeys.user)));
			await within(client.closed, "the cut");
			t.notMatch(client.text(), /\r\n0\r\n\r\n$/, "it is not whole");
			t.equal(client.text().match(/HTTP\/1\.1/g)?.length, 1);
			t.equal(gate.log.filter(isRequest).length, 1);
		},
	);
}

t.test(
	"a stream of responses that is cut for a revoked key says so before its end",
	async (t) => {
		const gate = await startBefore(t, (res) => {
			res.writeHead(200, { "content-type": sse });
			res.write(created);
		});
		const replying = call(gate, "/v1/responses");
		await eventually(async () => (await statusOf(gate)).streams === 1);
		await gate.writeKeys([]);
		await gate.daemon.reload();
		const reply = await replying;
		t.match(reply.text, /event: response\.failed\n/);
		t.match(await gate.logged(isRequest), {
			outcome: "cut",
			reason: "revoked",
		});
	},
);

t.test(
	"streams tell nginx not to gather them, and documents do not",
	async (t) => {
		const types: [string, string | null][] = [
			[ndjson, "no"],
			[`${sse}; charset=utf-8`, "no"],
			["application/json", null],
		];
		for (const [type, wanted] of types) {
			const gate = await startBefore(t, (res) => {
				res.setHeader("x-accel-redirect", "/secret");
				res.setHeader("x-accel-buffering", "yes");
				send(res, type, line({ done: true }));
			});
			const { response } = await call(gate, "/api/chat");
			t.equal(response.headers.get("x-accel-buffering"), wanted, type);
			t.equal(response.headers.get("x-accel-redirect"), null);
		}
	},
);

t.test("a 204 has no length, whatever Ollama says", async (t) => {
	const gate = await startBefore(t, (res) => {
		res.socket?.write("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n");
	});
	const client = await openRaw(gate.port);
	client.write(post("/api/copy", '{"model":"m"}', shows(testKeys.owner)));
	await client.until((text) => text.includes("\r\n\r\n"));
	t.match(client.text(), /^HTTP\/1\.1 204 /);
	t.notMatch(client.text(), /content-length|transfer-encoding/i);
	client.destroy();
	t.match(await gate.logged(isRequest), { status: 204, outcome: "ok" });
});

/** Sends the first half of a reply, and the second once the gate has looked for silence a few times. */
const withSilence =
	(silenceMs: number, type: string, first: string, rest: string): Answer =>
	(res) => {
		res.writeHead(200, { "content-type": type });
		res.write(first);
		setTimeout(() => res.end(rest), silenceMs);
	};

t.test(
	"Ollama may be silent in a stream for as long as before its first byte, past idleTimeout",
	async (t) => {
		const gate = await startBefore(
			t,
			withSilence(1_500, ndjson, line({ done: false }), line({ done: true })),
			{ upstream: { idleTimeout: "500ms", firstByteTimeout: "60s" } },
		);
		const reply = await call(gate, "/api/chat");
		t.equal(reply.broken, undefined);
		t.match(reply.text, /"done":true/);
	},
);

t.test(
	"pull and create may be silent four times as long, and no longer",
	async (t) => {
		const config = {
			upstream: { idleTimeout: "500ms", firstByteTimeout: "500ms" },
		};
		const status = (text: string) => line({ status: text });
		const gate = await startBefore(
			t,
			withSilence(1_000, ndjson, status("verifying"), status("success")),
			config,
		);
		for (const path of ["/api/pull", "/api/create", "/api/push"]) {
			const reply = await call(gate, path);
			t.equal(reply.broken, undefined, path);
			t.match(reply.text, /success/, path);
		}
		const silent = await startBefore(
			t,
			(res) => {
				res.writeHead(200, { "content-type": ndjson });
				res.write(status("verifying"));
			},
			config,
		);
		const cut = await call(silent, "/api/pull");
		t.ok(cut.broken);
		t.match(cut.text, /\n\{"error":"Ollama sent nothing for [^"]*"\}\n$/);
	},
);

t.test(
	"a client's connection that idles is told that it stays open for five minutes",
	async (t) => {
		const gate = await startBefore(t, (res) =>
			send(res, ndjson, line({ done: true })),
		);
		const req = request(`${gate.url}/api/chat`, {
			method: "POST",
			headers: { ...bearer(testKeys.user), connection: "keep-alive" },
		});
		req.end('{"model":"m"}');
		const [res] = await once(req, "response");
		res.resume();
		t.equal(res.headers["keep-alive"], "timeout=300");
	},
);

t.test(
	"a client that leaves with the last event, before the reply's end, has had it whole",
	async (t) => {
		const replies: Record<string, [type: string, body: string]> = {
			"/v1/responses": [sse, created + finished("completed")],
			"/api/chat": [ndjson, line({ model: "m", done: true })],
			"/v1/messages": [sse, event("message_stop", {})],
		};
		const middles: Record<string, [type: string, body: string]> = {
			"/v1/responses": [sse, created],
			"/api/chat": [ndjson, line({ model: "m", done: false })],
			"/v1/embeddings": ["application/json", "{"],
		};
		for (const [outcome, all] of [
			["ok", replies],
			["client_gone", middles],
		] as const)
			for (const [path, [type, body]] of Object.entries(all)) {
				const gate = await startBefore(t, (res) => {
					res.writeHead(200, { "content-type": type });
					// And no end.
					res.write(body);
				});
				const leaving = new AbortController();
				const { body: reply } = await fetch(`${gate.url}${path}`, {
					method: "POST",
					headers: bearer(testKeys.owner),
					body: '{"model":"m","stream":true}',
					signal: leaving.signal,
				});
				const reader = reply?.getReader();
				let length = 0;
				while (length < Buffer.byteLength(body))
					length += (await reader?.read())?.value?.length ?? 0;
				leaving.abort();
				const found = await gate.logged(isRequest);
				t.equal(found.outcome, outcome, path);
				t.equal(found.status, 200);
			}
	},
);

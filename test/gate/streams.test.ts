import { createHash } from "node:crypto";
import { once } from "node:events";
import { createServer, request } from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import { localSocketName } from "../../src/net/listener.ts";
import type { Misbehaviour } from "../../src/ollama/standIn.ts";
import {
	bearer,
	eventually,
	spawnGate,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";

const chatBody = (more: object = {}) =>
	JSON.stringify({
		model: "qwen3:8b",
		messages: [{ role: "user", content: "a" }],
		prompt: "a",
		input: "a",
		...more,
	});

/** Opens a streamed request and hands out its reply's text piece by piece. */
async function openStream(
	url: string,
	path = "/api/chat",
	body = chatBody(),
	key: string = testKeys.user,
) {
	const controller = new AbortController();
	const response = await fetch(`${url}${path}`, {
		method: "POST",
		headers: bearer(key),
		body,
		signal: controller.signal,
	});
	const reader = response.body
		?.pipeThrough(new TextDecoderStream())
		.getReader();
	let text = "";
	return {
		response,
		leave: () => controller.abort(),
		text: () => text,
		/** Reads until the condition holds for all text so far, or the end. */
		async until(condition: (text: string) => boolean): Promise<string> {
			while (reader !== undefined && !condition(text)) {
				const { done, value } = await reader.read();
				if (done) break;
				text += value;
			}
			return text;
		},
		/** Reads to the end; resolves with the error that broke it off, if any. */
		async rest(): Promise<unknown> {
			try {
				for (;;) {
					const next = await reader?.read();
					if (next === undefined || next.done) return undefined;
					text += next.value;
				}
			} catch (error) {
				return error;
			}
		},
	};
}

t.test(
	"a token reaches the client while Ollama is still silent about the next",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { misbehave: () => "stall-mid-stream" },
		});
		const stream = await openStream(gate.url);
		await stream.until((text) => text.split("\n").length > 4);
		t.equal(
			stream.text().trim().split("\n").length,
			4,
			"four tokens, one line each",
		);
		stream.leave();
	},
);

t.test(
	"the response's headers reach the client before its first byte",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { misbehave: () => "stall-after-headers" },
		});
		const stream = await openStream(gate.url);
		t.equal(stream.response.status, 200);
		t.equal(
			stream.response.headers.get("content-type"),
			"application/x-ndjson",
		);
		stream.leave();
	},
);

t.test(
	"a client that leaves before the headers cancels the request upstream",
	async (t) => {
		const gate = await startGate(t, { standIn: { misbehave: () => "hang" } });
		const req = request(`${gate.url}/api/chat`, {
			method: "POST",
			headers: bearer(testKeys.user),
		});
		req.on("error", () => {});
		req.end(chatBody());
		const [call] = await once(gate.standIn.events, "body");
		req.destroy();
		const [aborted] = await once(gate.standIn.events, "abort");
		t.equal(aborted, call);
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			outcome: "client_gone",
			status: 499,
		});
	},
);

t.test(
	"a client that leaves in the middle of a stream cancels the request upstream",
	async (t) => {
		const gate = await startGate(t, { standIn: { tokenIntervalMs: 5 } });
		const stream = await openStream(gate.url);
		await stream.until((text) => text.includes("\n"));
		const aborted = once(gate.standIn.events, "abort");
		stream.leave();
		await aborted;
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			outcome: "client_gone",
			model: "qwen3:8b",
		});
	},
);

t.test(
	"a client that leaves in the middle of its upload cancels the request upstream",
	async (t) => {
		const gate = await startGate(t);
		const req = request(`${gate.url}/api/blobs/sha256:${"0".repeat(64)}`, {
			method: "POST",
			headers: bearer(testKeys.owner),
		});
		req.on("error", () => {});
		req.write(Buffer.alloc(200_000));
		const [call] = await once(gate.standIn.events, "call");
		await eventually(() => call.bodyBytes >= 200_000);
		const aborted = once(gate.standIn.events, "abort");
		req.destroy();
		await aborted;
		t.equal(call.finished, false);
	},
);

t.test("what a call streams is what Ollama sent, byte for byte", async (t) => {
	const gate = await startGate(t);
	// The model remembers the prompt of the call before, and says so.
	await (await openStream(gate.standIn.url)).rest();
	const direct = await openStream(gate.standIn.url);
	const through = await openStream(gate.url);
	await direct.rest();
	await through.rest();
	const withoutTimes = (text: string) =>
		text.replace(/"(created_at|\w+_duration)":("[^"]*"|\d+)/g, "");
	t.equal(withoutTimes(through.text()), withoutTimes(direct.text()));
	t.match(through.text(), /"done":true/);
});

t.test("an upload of any size goes through as it came", async (t) => {
	const gate = await startGate(t);
	const chunk = Buffer.alloc(1 << 20, 7);
	async function* chunks() {
		for (let i = 0; i < 64; i++) yield chunk;
	}
	const hash = createHash("sha256");
	for await (const piece of chunks()) hash.update(piece);
	const response = await fetch(
		`${gate.url}/api/blobs/sha256:${hash.digest("hex")}`,
		{
			method: "POST",
			headers: bearer(testKeys.owner),
			body: ReadableStream.from(chunks()),
			duplex: "half",
		},
	);
	t.equal(response.status, 201);
	t.equal(gate.standIn.calls[0]?.bodyBytes, 64 << 20);
	t.match(await gate.logged(({ msg }) => msg === "request"), {
		bytesIn: 64 << 20,
		outcome: "ok",
	});
});

t.test(
	"an upload that Ollama does not read is not gathered in the gate",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { misbehave: () => "never-read" },
		});
		const req = request(`${gate.url}/api/blobs/sha256:${"0".repeat(64)}`, {
			method: "POST",
			headers: bearer(testKeys.owner),
		});
		req.on("error", () => {});
		const chunk = Buffer.alloc(1 << 20);
		let sent = 0;
		// The kernel's buffers and the gate's take a few MiB; then the client must wait.
		while (req.write(chunk) || (await drainsWithin(req, 500))) {
			sent += chunk.length;
			if (sent > 200 << 20) break;
		}
		t.ok(sent < 100 << 20, `the client was held back after ${sent >> 20} MiB`);
		req.destroy();
	},
);

t.test(
	"a client that is answered in the middle of its upload can send the rest, and reads the answer",
	async (t) => {
		const gate = await startGate(t, {
			config: { upstream: { idleTimeout: "500ms" } },
			standIn: { misbehave: () => "never-read" },
		});
		const req = request(`${gate.url}/api/blobs/sha256:${"0".repeat(64)}`, {
			method: "POST",
			headers: bearer(testKeys.owner),
		});
		req.end(Buffer.alloc(64 << 20));
		const sent = once(req, "finish");
		const [res] = await once(req, "response");
		t.equal(res.statusCode, 504);
		res.resume();
		await sent;
		t.pass("nobody cut it off");
	},
);

function drainsWithin(
	req: ReturnType<typeof request>,
	durationMs: number,
): Promise<boolean> {
	return new Promise((resolve) => {
		const timer = setTimeout(() => resolve(false), durationMs);
		req.once("drain", () => {
			clearTimeout(timer);
			resolve(true);
		});
	});
}

t.test(
	"a reply that the client does not read is not gathered in the gate",
	async (t) => {
		let sent = 0;
		const upstream = createServer((_req, res) => {
			res.writeHead(200, { "content-type": "application/x-ndjson" });
			const chunk = Buffer.alloc(1 << 16, 10);
			const more = () => {
				while (sent < 1 << 30) {
					sent += chunk.length;
					if (!res.write(chunk)) break;
				}
			};
			res.on("drain", more);
			more();
		});
		await once(upstream.listen(0, "127.0.0.1"), "listening");
		t.teardown(() => {
			upstream.closeAllConnections();
			upstream.close();
		});
		const { port } = upstream.address() as AddressInfo;
		const gate = await startGate(t, {
			upstreamUrl: `http://127.0.0.1:${port}`,
		});
		const req = request(`${gate.url}/api/chat`, {
			method: "POST",
			headers: bearer(testKeys.user),
		});
		req.end(chatBody());
		const [res] = await once(req, "response");
		res.pause();
		let before = -1;
		// Until it stands still for half a second.
		while (before !== sent) {
			before = sent;
			await new Promise((resolve) => setTimeout(resolve, 500));
		}
		t.ok(sent < 64 << 20, `Ollama was held back after ${sent >> 20} MiB`);
		const held = sent;
		res.resume();
		await eventually(() => sent > held);
		t.pass("and goes on once the client reads");
		req.destroy();
	},
);

t.test(
	"100 Continue is sent for an upload that is let in, and only then",
	async (t) => {
		const gate = await startGate(t);
		const send = async (key: string) => {
			const req = request(`${gate.url}/api/embed`, {
				method: "POST",
				headers: {
					...bearer(key),
					expect: "100-continue",
					"content-length": 20,
				},
			});
			req.flushHeaders();
			let continued = false;
			req.on("continue", () => {
				continued = true;
				req.end('{"model":"qwen3:8b"}');
			});
			req.on("error", () => {});
			const [res] = await once(req, "response");
			res.resume();
			req.destroy();
			return { status: res.statusCode, continued };
		};
		t.strictSame(await send(testKeys.user), { status: 200, continued: true });
		t.strictSame(await send(testKeys.wrong), { status: 401, continued: false });
		t.strictSame(await send(testKeys.reader), {
			status: 403,
			continued: false,
		});
		t.equal(gate.standIn.calls.length, 1);
	},
);

t.test("HEAD is answered with headers alone", async (t) => {
	const gate = await startGate(t);
	const response = await fetch(`${gate.url}/api/tags`, {
		method: "HEAD",
		headers: bearer(testKeys.user),
	});
	t.equal(response.status, 200);
	t.ok(Number(response.headers.get("content-length")) > 0);
	t.equal(await response.text(), "");
	const next = await fetch(`${gate.url}/api/version`, {
		headers: bearer(testKeys.user),
	});
	t.match(await next.json(), { version: String });
});

t.test(
	"Ollama sees the allow-listed headers and its own Host, and nothing that names the client",
	async (t) => {
		const gate = await startGate(t);
		const req = request(`${gate.url}/v1/messages?beta=true`, {
			method: "POST",
			headers: {
				...bearer(testKeys.user),
				"x-api-key": testKeys.user,
				host: "evil.example",
				origin: "http://evil.example",
				referer: "http://evil.example/",
				cookie: "session=1",
				"proxy-authorization": "Basic eDp5",
				"x-forwarded-for": "127.0.0.1",
				"x-real-ip": "127.0.0.1",
				forwarded: "for=127.0.0.1",
				x_forwarded_for: "127.0.0.1",
				te: "trailers",
				"x-hop": "1",
				"content-type": "application/json",
				"anthropic-version": "2023-06-01",
				"anthropic-beta": "tools",
				"user-agent": "test",
				connection: "keep-alive, anthropic-beta, x-hop",
			},
		});
		req.end(chatBody({ max_tokens: 1 }));
		const [res] = await once(req, "response");
		res.resume();
		await once(res, "end");
		t.equal(res.statusCode, 200);
		const [call] = gate.standIn.calls;
		t.strictSame(
			Object.fromEntries(Object.entries(call?.headers ?? {}).sort()),
			{
				"anthropic-version": "2023-06-01",
				"content-length": String(call?.bodyBytes),
				"content-type": "application/json",
				host: `127.0.0.1:${gate.standIn.port}`,
				"user-agent": "test",
			},
		);
		t.equal(call?.target, "/v1/messages");
	},
);

t.test(
	"hop-by-hop headers of a reply, and those that its Connection names, stay behind",
	async (t) => {
		const upstream = createServer((_req, res) => {
			res.writeHead(200, {
				connection: "x-secret-hop",
				"x-secret-hop": "1",
				"keep-alive": "timeout=9",
				"proxy-authenticate": "Basic",
				"set-cookie": ["a=1", "b=2"],
				"access-control-allow-origin": "*",
				"x-llamagate-queue-ms": "2",
				"x-llamagate-budget-remaining": "requests=4",
				"x-content-type-options": "nosniff",
				"x-kept": "yes",
			});
			res.end("{}");
		});
		await once(upstream.listen(0, "127.0.0.1"), "listening");
		t.teardown(() => upstream.close());
		const { port } = upstream.address() as AddressInfo;
		const gate = await startGate(t, {
			upstreamUrl: `http://127.0.0.1:${port}`,
		});
		const response = await fetch(`${gate.url}/api/tags`, {
			headers: bearer(testKeys.user),
		});
		await response.text();
		t.equal(response.headers.get("x-kept"), "yes");
		t.equal(response.headers.get("x-content-type-options"), "nosniff");
		for (const name of [
			"x-secret-hop",
			"proxy-authenticate",
			"set-cookie",
			"access-control-allow-origin",
			"x-llamagate-queue-ms",
			"x-llamagate-budget-remaining",
		])
			t.equal(response.headers.get(name), null, name);
		t.not(response.headers.get("keep-alive"), "timeout=9");
	},
);

t.test("Ollama behind a Unix socket is reached as well", async (t) => {
	const { temporaryFolder } = await import("../support/gate.ts");
	const { startStandIn } = await import("../../src/ollama/standIn.ts");
	const socketPath = `${await temporaryFolder(t)}/ollama.sock`;
	const standIn = await startStandIn({ socketPath });
	t.teardown(() => standIn.close());
	const gate = await startGate(t, { upstreamUrl: standIn.url });
	const stream = await openStream(gate.url);
	t.equal(await stream.rest(), undefined);
	t.match(stream.text(), /"done":true/);
	t.equal(standIn.calls[0]?.headers.host, "127.0.0.1:11434");
});

t.test(
	"when Ollama cannot be reached the answer is 502 in the family's shape",
	async (t) => {
		const gate = await startGate(t, { upstreamUrl: "http://127.0.0.1:1" });
		const post = async (path: string) => {
			const response = await fetch(`${gate.url}${path}`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: chatBody(),
			});
			t.equal(response.status, 502, path);
			return response.json();
		};
		t.match(await post("/api/chat"), { error: /cannot reach Ollama/ });
		t.match(await post("/v1/chat/completions"), {
			error: {
				type: "api_error",
				message: /cannot reach Ollama/,
				param: null,
				code: null,
			},
		});
		t.match(await post("/v1/messages"), {
			type: "error",
			error: { type: "api_error", message: /cannot reach Ollama/ },
		});
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			outcome: "upstream_error",
			reason: "upstream_unreachable",
		});
	},
);

const beforeHeaders: [Misbehaviour, string][] = [
	["reset", "upstream_died"],
	["garbage", "upstream_garbage"],
	["huge-header", "upstream_garbage"],
	["redirect", "upstream_redirect"],
];
for (const [misbehaviour, reason] of beforeHeaders) {
	t.test(
		`an upstream that answers with ${misbehaviour} is a 502, and the next call works`,
		async (t) => {
			let broken = true;
			const gate = await startGate(t, {
				standIn: { misbehave: () => (broken ? misbehaviour : undefined) },
			});
			const stream = await openStream(gate.url);
			t.equal(stream.response.status, 502);
			t.equal(stream.response.headers.get("location"), null);
			t.equal(await stream.rest(), undefined);
			t.match(JSON.parse(stream.text()), { error: String });
			t.match(await gate.logged(({ msg }) => msg === "request"), {
				outcome: "upstream_error",
				reason,
			});
			broken = false;
			const next = await openStream(gate.url);
			t.equal(await next.rest(), undefined);
			t.match(next.text(), /"done":true/);
		},
	);
}

t.test("an interim response of Ollama's is passed over", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "early-hints" },
	});
	const stream = await openStream(gate.url);
	t.equal(stream.response.status, 200);
	t.equal(await stream.rest(), undefined);
	t.match(stream.text(), /"done":true/);
});

t.test("a document that is broken off is cut, not ended", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "wrong-length" },
	});
	const stream = await openStream(gate.url);
	t.ok(await stream.rest(), "the client sees that it is not whole");
	t.match(await gate.logged(({ msg }) => msg === "request"), {
		outcome: "upstream_error",
	});
});

const families: [string, object, RegExp][] = [
	["/api/chat", {}, /\n\{"error":"[^"]+"\}\n$/],
	["/api/generate", {}, /\n\{"error":"[^"]+"\}\n$/],
	[
		"/v1/chat/completions",
		{ stream: true },
		/\n\nevent: error\ndata: \{"error":\{"message":"[^"]+","type":"api_error","param":null,"code":null\}\}\n\n$/,
	],
	[
		"/v1/messages",
		{ stream: true, max_tokens: 50 },
		/\n\nevent: error\ndata: \{"type":"error","error":\{"type":"api_error","message":"[^"]+"\}\}\n\n$/,
	],
];
for (const [path, more, ending] of families) {
	for (const misbehaviour of ["die-mid-stream", "truncate"] as const) {
		t.test(
			`${path}: a stream that Ollama leaves by "${misbehaviour}" ends with one error in its own form, and is cut`,
			async (t) => {
				const gate = await startGate(t, {
					standIn: { misbehave: () => misbehaviour },
				});
				const stream = await openStream(gate.url, path, chatBody(more));
				const broken = await stream.rest();
				t.ok(broken, "the connection is cut");
				t.match(stream.text(), ending);
				t.notMatch(
					stream.text(),
					/"done":true|\[DONE\]|message_stop|response\.completed/,
				);
				t.match(await gate.logged(({ msg }) => msg === "request"), {
					outcome: "upstream_error",
				});
			},
		);
	}
}

t.test(
	"an error line of Ollama's own ends a stream as Ollama ended it",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { misbehave: () => "error-mid-stream" },
		});
		const stream = await openStream(gate.url);
		t.equal(await stream.rest(), undefined, "a clean end");
		t.equal(stream.text().match(/"error"/g)?.length, 1, "nothing is added");
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			outcome: "upstream_error",
			reason: "upstream_stream_error",
		});
	},
);

function http10Chat(): string {
	const body = chatBody();
	return `POST /api/chat HTTP/1.0\r\nhost: x\r\nauthorization: Bearer ${testKeys.user}\r\ncontent-length: ${body.length}\r\n\r\n${body}`;
}

t.test(
	"over HTTP/1.0, where a close is an end, a broken stream is reset",
	async (t) => {
		const { connect } = await import("node:net");
		const gate = await startGate(t, {
			standIn: { misbehave: () => "die-mid-stream", tokenIntervalMs: 5 },
		});
		const socket = connect(gate.port, "127.0.0.1");
		socket.write(http10Chat());
		socket.resume();
		const code = await new Promise((resolve) => {
			socket.on("error", (error: NodeJS.ErrnoException) => resolve(error.code));
			socket.on("end", () => resolve("clean end"));
		});
		t.equal(code, "ECONNRESET");
	},
);

t.test(
	"over HTTP/1.0 on a Unix socket, which knows no reset, it is closed, and the gate goes on",
	async (t) => {
		const { connect } = await import("node:net");
		const folder = await temporaryFolder(t);
		const socketPath = `${folder}/gate.sock`;
		const gate = await spawnGate(t, {
			launcher: [
				"env",
				`LISTEN_FDNAMES=${localSocketName}`,
				"python3",
				"test/support/inheritSocket.py",
				"--address",
				socketPath,
			],
			standIn: { misbehave: () => "die-mid-stream", tokenIntervalMs: 5 },
		});
		for (let turn = 1; turn <= 2; turn++) {
			const socket = connect(socketPath);
			socket.write(http10Chat());
			let text = "";
			socket.on("data", (data) => {
				text += data;
			});
			await once(socket, "close");
			t.match(
				text,
				/^HTTP\/1\.1 200 [\s\S]*\n\{"error":"Ollama /,
				`call ${turn}`,
			);
		}
		t.equal(gate.child.exitCode, null);
	},
);

t.test(
	"an Ollama that stays silent past firstByteTimeout is a 504",
	async (t) => {
		const gate = await startGate(t, {
			config: { upstream: { firstByteTimeout: "500ms" } },
			standIn: { misbehave: () => "hang" },
		});
		const aborted = once(gate.standIn.events, "abort");
		const stream = await openStream(gate.url);
		t.equal(stream.response.status, 504);
		await aborted;
		t.pass("and the request upstream is cancelled");
	},
);

t.test(
	"a stream that stands still past firstByteTimeout is broken off with an error",
	async (t) => {
		const gate = await startGate(t, {
			config: { upstream: { idleTimeout: "500ms", firstByteTimeout: "500ms" } },
			standIn: { misbehave: () => "stall-mid-stream" },
		});
		const stream = await openStream(gate.url);
		t.ok(await stream.rest());
		t.match(stream.text(), /\n\{"error":"Ollama sent nothing for [^"]*"\}\n$/);
	},
);

t.test(
	"an upload that stands still past idleTimeout is given up",
	async (t) => {
		const gate = await startGate(t, {
			config: { upstream: { idleTimeout: "500ms" } },
		});
		const req = request(`${gate.url}/api/embed`, {
			method: "POST",
			headers: { ...bearer(testKeys.user), "content-length": 100 },
		});
		req.on("error", () => {});
		req.write("{");
		const [res] = await once(req, "response");
		t.equal(res.statusCode, 408);
		t.equal(gate.standIn.calls.length, 0, "it never took a place at Ollama");
		req.destroy();
	},
);

t.test(
	"requests beyond upstream.maxConnections are told that the server is busy",
	async (t) => {
		const gate = await startGate(t, {
			config: { upstream: { maxConnections: 2 } },
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/chat" ? "hang" : undefined,
			},
		});
		const hanging = [1, 2].map(() => {
			const req = request(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.user),
			});
			req.on("error", () => {});
			req.end(chatBody());
			return req;
		});
		await eventually(() => gate.standIn.calls.length === 2);
		const stream = await openStream(gate.url);
		t.equal(stream.response.status, 503);
		t.ok(stream.response.headers.get("retry-after"));
		for (const req of hanging) req.destroy();
		// Their places are given back.
		await eventually(
			async () =>
				(await openStream(gate.url, "/api/show")).response.status === 200,
		);
	},
);

t.test(
	"the log has the model and the token counts of every family, and the counters add up",
	async (t) => {
		const gate = await startGate(t);
		const cases: [string, object][] = [
			["/api/chat", {}],
			["/api/generate", { stream: false }],
			[
				"/v1/chat/completions",
				{
					stream: true,
					stream_options: { include_usage: true },
					max_tokens: 5,
				},
			],
			["/v1/chat/completions", { max_tokens: 5 }],
			["/v1/messages", { stream: true, max_tokens: 5 }],
			["/v1/messages", { max_tokens: 5 }],
			["/v1/responses", { stream: true, max_output_tokens: 5 }],
		];
		for (const [path, more] of cases) {
			const stream = await openStream(
				gate.url,
				path,
				chatBody({ options: { num_predict: 5 }, ...more }),
			);
			t.equal(await stream.rest(), undefined);
		}
		await eventually(
			() =>
				gate.log.filter(({ msg }) => msg === "request").length === cases.length,
		);
		const lines = gate.log.filter(({ msg }) => msg === "request");
		for (const [index, [path]] of cases.entries())
			t.match(
				lines[index],
				{
					key: "user",
					route: `POST ${path}`,
					model: "qwen3:8b",
					status: 200,
					tokensIn: 26,
					tokensOut: 5,
					outcome: "ok",
					ttftMs: Number,
				},
				`${path}`,
			);
	},
);

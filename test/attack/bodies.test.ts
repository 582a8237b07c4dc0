import { gzipSync, zstdCompressSync } from "node:zlib";
import t from "tap";
import {
	eventually,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import {
	attack,
	chunk,
	head,
	honestStatus,
	openRaw,
	post,
	shows,
	statusOf,
	strayCalls,
} from "../support/raw.ts";

const body = '{"model":"qwen3:8b","stream":false}';
const owner = shows(testKeys.owner);

t.test(
	"a body whose coding Ollama does not take is turned away, whatever it is called",
	async (t) => {
		const gate = await startGate(t);
		const codings = [
			"gzip",
			"x-gzip",
			"GZIP",
			"ZSTD",
			"br",
			"deflate",
			"compress",
			"dcz",
			"identity, gzip",
			"gzip, identity",
			"zstd,zstd",
			",",
			"identity;q=1",
			"*",
			"utf-8",
			"aws-chunked",
		];
		const coded = zstdCompressSync(gzipSync(body)).toString("latin1");
		for (const coding of codings) {
			for (const target of [
				"/v1/chat/completions",
				"/v1/messages",
				"/api/chat",
			]) {
				const request = post(
					target,
					coded,
					`Content-Encoding: ${coding}`,
					owner,
				);
				const { status } = await attack(gate, request);
				t.equal(status, 415, `${target}, ${coding}`);
				const stranger = await attack(
					gate,
					request.replace(`${owner}\r\n`, ""),
				);
				t.equal(stranger.status, 401, `${target}, ${coding}, without a key`);
			}
		}
		for (const lines of [
			["Content-Encoding: identity", "Content-Encoding: gzip"],
			["Content-Encoding: gzip", "Content-Encoding: identity"],
			["Content-Encoding: zstd", "Content-Encoding: zstd"],
		]) {
			const { status } = await attack(
				gate,
				post("/v1/chat/completions", coded, ...lines, owner),
			);
			t.equal(status, 415, lines.join(", "));
		}
		t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
		for (const target of [
			"/api/chat",
			"/api/embed",
			"/v1/audio/transcriptions",
		]) {
			const { status } = await attack(
				gate,
				post(target, coded, "Content-Encoding: zstd", owner),
			);
			t.equal(
				status,
				415,
				`zstd to ${target}, where Ollama does not unpack it`,
			);
		}
		t.strictSame(strayCalls(gate), [], "nothing reached Ollama");
		const plain = await attack(
			gate,
			post("/api/embed", body, "Content-Encoding: identity", owner),
		);
		t.equal(plain.status, 200, "identity is no coding");
		t.notOk(gate.standIn.calls.at(-1)?.headers["content-encoding"]);
	},
);

t.test("a route without a body takes none", async (t) => {
	const gate = await startGate(t);
	const requests: Record<string, string> = {
		"a length": `${head("GET /api/tags HTTP/1.1", "Host: gate", owner, "Content-Length: 5")}hello`,
		chunks: `${head("GET /api/tags HTTP/1.1", "Host: gate", owner, "Transfer-Encoding: chunked")}${chunk("hello")}0\r\n\r\n`,
		"chunks of nothing": `${head("GET /api/tags HTTP/1.1", "Host: gate", owner, "Transfer-Encoding: chunked")}0\r\n\r\n`,
		"a request as a body": `${head("GET /api/tags HTTP/1.1", "Host: gate", owner, "Content-Length: 38")}${head("DELETE /api/delete HTTP/1.1", "Host: x")}`,
		"the body of another version": `${head("GET / HTTP/1.0", owner, "Content-Length: 5")}hello`,
	};
	for (const [what, bytes] of Object.entries(requests)) {
		const { status } = await attack(gate, bytes);
		t.equal(status, 400, what);
	}
	const { status } = await attack(
		gate,
		head("GET /api/tags HTTP/1.1", "Host: gate", owner, "Content-Length: 0"),
	);
	t.equal(status, 200, "a body of no bytes is none");
	t.strictSame(strayCalls(gate), ["GET /api/tags"]);
});

/** Sends a chunked body until the gate has answered or closed, and returns the status. */
async function uploadTooMuch(
	gate: TestGate,
	target: string,
	limit: number,
): Promise<number | undefined> {
	const client = await openRaw(gate.port);
	client.write(
		head(
			`POST ${target} HTTP/1.1`,
			"Host: gate",
			owner,
			"Transfer-Encoding: chunked",
		),
	);
	const piece = chunk("x".repeat(16_384));
	for (let sent = 0; sent < 8 * limit && client.text() === ""; sent += 16_384) {
		client.write(piece);
		await new Promise((resolve) => setImmediate(resolve));
	}
	const [reply] = await client.untilReplies(1);
	client.destroy();
	return reply?.status;
}

t.test("a body over its limit is turned away, announced or not", async (t) => {
	const limit = 256 * 1024;
	const gate = await startGate(t, { config: { limits: { body: "256KiB" } } });
	const small = 2 ** 20;
	for (const [target, most] of [
		["/api/chat", limit],
		["/v1/chat/completions", limit],
		["/v1/messages", limit],
		["/api/show", small],
		["/api/pull", small],
		["/api/create", small],
	] as const) {
		const { status } = await attack(
			gate,
			head(
				`POST ${target} HTTP/1.1`,
				"Host: gate",
				owner,
				`Content-Length: ${most + 1}`,
			),
		);
		t.equal(status, 413, `${target}: announced`);
		t.strictSame(strayCalls(gate), [], `${target}: not begun upstream`);

		t.equal(
			await uploadTooMuch(gate, target, most),
			413,
			`${target}: in chunks`,
		);
		await eventually(() =>
			gate.standIn.calls.every(
				(call) =>
					call.target === "/api/version" || call.abortedAtMs !== undefined,
			),
		);
		t.ok(
			gate.standIn.calls.every(({ bodyBytes }) => bodyBytes <= most),
			`${target}: Ollama had no more than the limit of it`,
		);
		gate.standIn.calls.length = 0;

		const fits = await attack(gate, post(target, "x".repeat(most), owner));
		t.equal(
			fits.status,
			400,
			`${target}: Ollama's own word on a body that fits`,
		);
		t.equal(gate.standIn.calls.at(-1)?.bodyBytes, most);
		gate.standIn.calls.length = 0;
	}
	t.equal(await honestStatus(gate), 200, "an honest request is served");
});

t.test(
	"a body that was announced and does not come takes no connection to Ollama",
	async (t) => {
		const gate = await startGate(t);
		const clients = await Promise.all(
			Array.from({ length: 50 }, async () => {
				const client = await openRaw(gate.port);
				client.write(
					`${head(
						"POST /api/embed HTTP/1.1",
						"Host: gate",
						owner,
						`Content-Length: ${body.length}`,
					)}${body.slice(0, 10)}`,
				);
				return client;
			}),
		);
		t.equal(await honestStatus(gate), 200, "an honest request is served");
		t.strictSame(strayCalls(gate), [], "nothing else has begun upstream");
		t.equal(await gate.standIn.openConnections(), 1, "the honest request's");
		for (const client of clients) client.write(body.slice(10));
		for (const client of clients) {
			t.equal(
				(await client.untilReplies(1))[0]?.status,
				200,
				"late, but served",
			);
			client.destroy();
		}
		t.equal(strayCalls(gate).length, clients.length);
	},
);

t.test(
	"a key that may only read cannot take Ollama from the others",
	async (t) => {
		const gate = await startGate(t, {
			config: {
				upstream: { maxConnections: 8 },
				limits: { perKey: { concurrent: 4 } },
			},
		});
		// As many bodies on their way as there are connections to Ollama, twice what one key may have.
		const clients = await Promise.all(
			Array.from({ length: 8 }, async () => {
				const client = await openRaw(gate.port, "127.0.0.2");
				client.write(
					`${head(
						"POST /api/show HTTP/1.1",
						"Host: gate",
						shows(testKeys.reader),
						"Content-Length: 30",
					)}{`,
				);
				return client;
			}),
		);
		t.teardown(() => {
			for (const client of clients) client.destroy();
		});
		await eventually(
			async () => (await statusOf(gate)).connections === clients.length,
		);
		const { status, replies } = await attack(
			gate,
			post("/api/embed", body, shows(testKeys.user)),
			"127.0.0.3",
		);
		t.equal(status, 200, `another key is served: ${replies[0]?.body}`);
		t.strictSame(strayCalls(gate), ["POST /api/embed"]);
	},
);

t.test(
	"a redirect of Ollama's is neither followed nor passed on",
	async (t) => {
		const gate = await startGate(t, {
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/version" ? undefined : "redirect",
			},
		});
		for (const request of [
			head("GET /api/tags HTTP/1.1", "Host: gate", owner),
			head("GET / HTTP/1.1", "Host: gate", owner),
			post("/api/embed", body, owner),
			post("/v1/messages", body, owner),
		]) {
			const { status, replies } = await attack(gate, request);
			t.equal(status, 502);
			t.notOk(replies[0]?.headers.location);
			t.notMatch(replies[0]?.body, /elsewhere/);
		}
		t.equal(gate.standIn.calls.length, 4, "each was asked once");
		t.equal(await honestStatus(gate), 200, "an honest request is served");
	},
);

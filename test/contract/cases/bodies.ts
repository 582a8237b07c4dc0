import { connect } from "node:net";
import { gzipSync, zstdCompressSync } from "node:zlib";
import { head, openRaw } from "../../support/raw.ts";
import type { Group } from "../contract.ts";

/** A request that is answered at once, with 200, where its body is read as one. */
const unload = '{"model":"smol","keep_alive":0}';
const chat = JSON.stringify({
	model: "nope",
	messages: [{ role: "user", content: "a" }],
	prompt: "a",
	input: "a",
	max_tokens: 4,
});

/** How a body is read. */
export const bodies: Group = {
	cases: {
		"these bodies are read": async (t, ollama) => {
			for (const body of [
				'{"MODEL":"smol","keep_alive":0}',
				'{"model":"nope","MODEL":"smol","keep_alive":0}',
				'{"model":"smol","model":null,"keep_alive":0}',
				'{"mod\\u0065l":"smol","keep_alive":0}',
				'{"model":"smol","\u212aeep_alive":0}',
				`${unload}trailing`,
				`${unload}{"model":"nope"}`,
				` ${unload} `,
				'{"model":"smol","keep_alive":0,"stream":null}',
				'{"model":"smol","keep_alive":0,"options":null}',
				'{"model":"smol","keep_alive":0,"messages":5}',
				`{"model":"smol","keep_alive":0,"x":${"[".repeat(9_998)}${"]".repeat(9_998)}}`,
				Buffer.from(
					'{"model":"smol","keep_alive":0,"system":"\xff"}',
					"latin1",
				),
			])
				t.match(
					await ollama.ask("POST", "/api/generate", body),
					{ status: 200, text: /"done_reason":"unload"\}$/ },
					String(body).slice(0, 60),
				);
		},
		"of two members the last counts, whatever their case": async (
			t,
			ollama,
		) => {
			t.match(
				await ollama.ask(
					"POST",
					"/api/generate",
					'{"MODEL":"smol","model":"nope","keep_alive":0}',
				),
				{ status: 404, text: `{"error":"model 'nope' not found"}` },
			);
		},
		"these bodies are refused": async (t, ollama) => {
			for (const [body, words] of [
				["", /^missing request body$/],
				["   ", /^missing request body$/],
				["{", /^unexpected EOF$/],
				["[]", /^json: cannot unmarshal array into Go value of type api/],
				['"a"', /^json: cannot unmarshal string into Go value of type api/],
				["1", /^json: cannot unmarshal number into Go value of type api/],
				['{"model":"smol",}', /^invalid character '}'/],
				["{'model':'smol'}", /^invalid character/],
				[`\ufeff${unload}`, /^invalid character/],
				[Buffer.from(unload, "utf16le"), /^invalid character/],
				[
					`{"x":${"[".repeat(10_000)}${"]".repeat(10_000)}}`,
					/exceeded max depth$/,
				],
				[
					'{"model":5}',
					/^json: cannot unmarshal number into Go struct field GenerateRequest\.model of type string$/,
				],
				[
					'{"model":"smol","stream":"true"}',
					/^json: cannot unmarshal string into Go struct field GenerateRequest\.stream of type bool$/,
				],
				[
					'{"model":"smol","stream":1}',
					/^json: cannot unmarshal number into Go struct field GenerateRequest\.stream of type bool$/,
				],
				[
					'{"model":"smol","options":"x"}',
					/^json: cannot unmarshal string into Go struct field GenerateRequest\.options of type map/,
				],
			] as const) {
				const { status, text } = await ollama.ask(
					"POST",
					"/api/generate",
					body,
				);
				t.equal(status, 400, String(body).slice(0, 60));
				t.match(JSON.parse(text).error, words, String(body).slice(0, 60));
			}
			t.match(await ollama.ask("POST", "/api/generate", "null"), {
				status: 404,
				text: `{"error":"model '' not found"}`,
			});
		},
		"the other families refuse a body in their own shape": async (
			t,
			ollama,
		) => {
			for (const path of ["/v1/chat/completions", "/v1/completions"])
				for (const [body, message] of [
					["", "EOF"],
					["{", "unexpected EOF"],
				] as const)
					t.match(
						await ollama.ask("POST", path, body),
						{
							status: 400,
							text: `{"error":{"message":"${message}","type":"invalid_request_error","param":null,"code":null}}`,
							headers: { "content-type": "application/json; charset=utf-8" },
						},
						`${path} ${body}`,
					);
			t.match(await ollama.ask("POST", "/v1/messages", ""), {
				status: 400,
				text: /^\{"type":"error","error":\{"type":"invalid_request_error","message":"EOF"\},"request_id":"req_[0-9a-f]{24}"\}$/,
			});
			t.match(await ollama.ask("POST", "/v1/responses", ""), {
				status: 400,
				text: ollama.has("responsesErrors")
					? /"missing request body","type":"invalid_request_error","param":null,"code":"invalid_request_error"/
					: /"EOF","type":"invalid_request_error","param":null,"code":null/,
			});
		},
		"the other families ask for what theirs must have": async (t, ollama) => {
			for (const [path, body, message] of [
				[
					"/v1/chat/completions",
					{ model: "nope", messages: [] },
					"[] is too short - 'messages'",
				],
				[
					"/v1/messages",
					{ model: "nope", messages: [{ role: "user", content: "a" }] },
					"max_tokens is required and must be positive",
				],
				[
					"/v1/messages",
					{ model: "nope", max_tokens: 5, messages: [] },
					"messages is required",
				],
				["/v1/embeddings", { model: "nope" }, "invalid input"],
				["/v1/embeddings", { model: "nope", input: [] }, "invalid input"],
			] as const) {
				const { status, text } = await ollama.ask("POST", path, body);
				t.equal(status, 400, message);
				t.equal(JSON.parse(text).error.message, message);
			}
			const { status, text } = await ollama.ask("POST", "/v1/responses", {
				model: "nope",
			});
			if (ollama.has("responsesInput"))
				t.match([status, text], [400, /"input is required"/]);
			else t.match([status, text], [404, /"model 'nope' not found"/]);
		},
		"Content-Type is not looked at": async (t, ollama) => {
			for (const type of [
				...["text/plain", "application/x-www-form-urlencoded"],
				...["multipart/form-data", "nonsense"],
			])
				t.equal(
					(
						await ollama.ask("POST", "/api/generate", unload, {
							"content-type": type,
						})
					).status,
					200,
					type,
				);
		},
		"zstd is unpacked on /v1, frame behind frame": async (t, ollama) => {
			for (const path of [
				...["/v1/chat/completions", "/v1/completions", "/v1/messages"],
				...["/v1/responses", "/v1/embeddings"],
			])
				for (const body of [
					zstdCompressSync(chat),
					Buffer.concat([zstdCompressSync(" "), zstdCompressSync(chat)]),
				])
					t.match(
						await ollama.ask("POST", path, body, {
							"content-encoding": "zstd",
						}),
						{ status: 404, text: /not found/ },
						path,
					);
		},
		"no other packing is, and none on /api": async (t, ollama) => {
			for (const [path, body, coding] of [
				["/v1/chat/completions", gzipSync(chat), "gzip"],
				["/v1/chat/completions", zstdCompressSync(chat), "ZSTD"],
				["/api/chat", zstdCompressSync(chat), "zstd"],
				["/api/generate", gzipSync(unload), "gzip"],
			] as const)
				t.match(
					await ollama.ask("POST", path, body, { "content-encoding": coding }),
					{ status: 400, text: /invalid character/ },
					`${path} ${coding}`,
				);
			for (const coding of ["gzip", "br", "zstd"])
				t.equal(
					(
						await ollama.ask("POST", "/api/generate", unload, {
							"content-encoding": coding,
						})
					).status,
					200,
					`${coding} that is none`,
				);
		},
		"a client that closes its half is answered all the same": async (
			t,
			ollama,
		) => {
			const socket = connect(ollama.port, "127.0.0.1");
			socket.end(
				`${head(
					"POST /api/generate HTTP/1.1",
					"Host: 127.0.0.1",
					`Content-Length: ${unload.length}`,
				)}${unload}`,
			);
			const text = (await socket.setEncoding("utf8").toArray()).join("");
			t.match(text, /^HTTP\/1\.1 200 OK\r\n/);
		},
		"requests on one connection are answered in their order": async (
			t,
			ollama,
		) => {
			const client = await openRaw(ollama.port);
			client.write(
				[
					head("GET /api/version HTTP/1.1", "Host: 127.0.0.1"),
					`${head(
						"POST /api/generate HTTP/1.1",
						"Host: 127.0.0.1",
						"Transfer-Encoding: chunked",
					)}${unload.length.toString(16)}\r\n${unload}\r\n0\r\n\r\n`,
					head("GET /api/nope HTTP/1.1", "Host: 127.0.0.1"),
				].join(""),
			);
			const replies = await client.untilReplies(3);
			t.strictSame(
				replies.map(({ status }) => status),
				[200, 200, 404],
			);
			client.destroy();
		},
	},
};

import type { Group } from "../contract.ts";

/** What each path answers to each method. */
export const routes: Group = {
	cases: {
		"a known path with another method is 405, with Allow and a line of text":
			async (t, ollama) => {
				for (const [method, path, allow] of [
					["GET", "/api/generate", "POST"],
					["GET", "/api/delete", "DELETE"],
					["HEAD", "/api/ps", "GET"],
					["HEAD", "/v1/models", "GET"],
					["PUT", "/api/chat", "POST"],
					["DELETE", "/api/tags", "HEAD, GET"],
					["OPTIONS", "/api/chat", "POST"],
					["PATCH", "/", "HEAD, GET"],
				] as const) {
					const { status, headers, text } = await ollama.ask(method, path);
					t.strictSame(
						[status, headers.allow, headers["content-type"], text],
						[
							405,
							allow,
							"text/plain",
							method === "HEAD" ? "" : "405 method not allowed",
						],
						`${method} ${path}`,
					);
				}
			},
		"an unknown path is 404, with a line of text": async (t, ollama) => {
			for (const [method, path] of [
				["GET", "/api/nope"],
				["GET", "/API/tags"],
				["GET", "/api/tags%20"],
				["GET", "/api/tags;x"],
				["GET", "/nope/"],
				["GET", "/api/generate/"],
				["POST", "/api/tags/"],
				["GET", "/v1/models/a/b"],
				["GET", "/%2Fapi/tags"],
				["POST", "/v1/images/generations"],
				["POST", "/v1/messages/count_tokens"],
				["POST", "/v1/rerank"],
				["POST", "/api/usage"],
				["POST", "/api/tokenize"],
				["POST", "/api/experimental/aliases"],
				["GET", "/metrics"],
			] as const) {
				const { status, headers, text } = await ollama.ask(method, path);
				t.strictSame(
					[status, headers["content-type"], text],
					[404, "text/plain", "404 page not found"],
					`${method} ${path}`,
				);
			}
		},
		"a path is cleaned by a redirect": async (t, ollama) => {
			for (const [method, path, status, location] of [
				["GET", "//api/tags", 307, "/api/tags"],
				["GET", "/./api/tags", 307, "/api/tags"],
				["GET", "/api/../api/tags", 307, "/api/tags"],
				["GET", "/a/../../api/tags", 307, "/api/tags"],
				["GET", "/api/tags/.", 307, "/api/tags"],
				["GET", "/api/tags//", 307, "/api/tags/"],
				["GET", "//nope", 307, "/nope"],
				["GET", "/api/tags/", 301, "/api/tags"],
				["GET", "/v1/models/", 301, "/v1/models"],
				["POST", "//api/show", 307, "/api/show"],
				["POST", "/api/show/", 307, "/api/show"],
			] as const) {
				const reply = await ollama.ask(method, path);
				t.strictSame(
					[reply.status, reply.headers.location],
					[status, location],
					`${method} ${path}`,
				);
			}
		},
		"a path is matched decoded, without its query, and with a host before it":
			async (t, ollama) => {
				for (const path of [
					"/api/tags?x=1",
					"/api/%74ags",
					"/api%2Ftags",
					`http://127.0.0.1:${ollama.port}/api/tags`,
				])
					t.match(
						await ollama.ask("GET", path),
						{ status: 200, text: /^\{"models":\[/ },
						path,
					);
				t.match(await ollama.ask("POST", "/api/%67enerate", "{"), {
					status: 400,
					text: '{"error":"unexpected EOF"}',
				});
				t.equal((await ollama.ask("GET", "/api/%zz")).status, 400);
				t.equal((await ollama.ask("GET", "*")).status, 400);
			},
		"what only tells is open to everybody": async (t, ollama) => {
			for (const [path, contentType, text] of [
				["/", "text/plain; charset=utf-8", /^Ollama is running$/],
				[
					"/api/version",
					"application/json; charset=utf-8",
					/^\{"version":"[\w.-]+"\}$/,
				],
				["/api/tags", "application/json; charset=utf-8", /^\{"models":\[\{/],
				["/api/ps", "application/json; charset=utf-8", /^\{"models":\[/],
				[
					"/api/status",
					"application/json; charset=utf-8",
					/^\{"cloud":\{"disabled":false,"source":"none"\}\}$/,
				],
				["/v1/models", /^application\/json/, /^\{"object":"list","data":\[\{/],
				[
					"/api/experimental/model-recommendations",
					"application/json; charset=utf-8",
					/^\{"recommendations":\[/,
				],
			] as const) {
				const reply = await ollama.ask("GET", path, undefined, {
					authorization: "Bearer whatever",
				});
				t.match(
					reply,
					{ status: 200, text, headers: { "content-type": contentType } },
					path,
				);
			}
			for (const path of ["/", "/api/version", "/api/tags"])
				t.match(
					await ollama.ask("HEAD", path),
					{ status: 200, text: "" },
					path,
				);
		},
		"a model in the list has these members": async (t, ollama) => {
			const { text } = await ollama.ask("GET", "/api/tags");
			const { models } = JSON.parse(text);
			t.strictSame(models.map(({ name }: { name: string }) => name).sort(), [
				"other:latest",
				"smol:latest",
			]);
			t.strictSame(Object.keys(models[0]), [
				...["name", "model", "modified_at", "size", "digest", "details"],
				"capabilities",
			]);
			t.strictSame(Object.keys(models[0].details), [
				...["parent_model", "format", "family", "families"],
				...["parameter_size", "quantization_level"],
				...["context_length", "embedding_length"],
			]);
			t.strictSame(models[0].capabilities, ["completion"]);
		},
		"what needs ollama.com fails where that cannot be reached": async (
			t,
			ollama,
		) => {
			t.match(await ollama.ask("POST", "/api/me"), {
				status: 503,
				text: '{"error":"account unavailable"}',
			});
			for (const path of ["web_search", "web_fetch"])
				t.match(
					await ollama.ask("POST", `/api/experimental/${path}`, {
						query: "a",
						url: "http://a.example/",
					}),
					{ status: 502, text: /^\{"error":"Post \\"https:\/\/ollama\.com/ },
					path,
				);
			for (const [method, path] of [
				["POST", "/api/signout"],
				["DELETE", "/api/user/keys/abc"],
			] as const)
				t.match(
					await ollama.ask(method, path),
					{ status: 500, text: '{"error":"there was an error signing out"}' },
					path,
				);
		},
		"a transcription without a form is 400": async (t, ollama) => {
			t.match(
				await ollama.ask("POST", "/v1/audio/transcriptions", {
					model: "smol",
				}),
				{ status: 400, text: /"failed to parse multipart form: / },
			);
		},
		"a desktop client's proxy answers every method, where there is one": async (
			t,
			ollama,
		) => {
			for (const method of ["GET", "POST", "PUT"])
				t.match(
					await ollama.ask(method, "/api/codex/_health"),
					ollama.has("codexProxy")
						? { status: 200, text: '{"ok":true}' }
						: { status: 404 },
					method,
				);
		},
		"conversations are compacted, where that can be done at all": async (
			t,
			ollama,
		) => {
			const reply = await ollama.ask("POST", "/v1/responses/compact", {
				model: "smol",
				input: "a",
			});
			if (ollama.has("compaction"))
				t.match(reply, {
					status: 400,
					text: /^\{"error":\{"message":"registry\.ollama\.ai\/library\/smol:latest does not support tools"/,
				});
			else t.equal(reply.status, 404);
		},
	},
};

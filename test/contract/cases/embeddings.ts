import type { Group } from "../contract.ts";

/** What a model that can only chat says when it is to embed. */
export const embeddings: Group = {
	cases: {
		"a model that chats makes no embeddings": async (t, ollama) => {
			const message =
				"This server does not support embeddings. Start it with `--embeddings`";
			for (const [path, status] of [
				["/api/embed", 501],
				["/api/embeddings", 500],
				["/v1/embeddings", 501],
			] as const) {
				const reply = await ollama.ask("POST", path, {
					...{ model: "smol", input: "a", prompt: "a" },
				});
				t.equal(reply.status, status, path);
				t.strictSame(
					JSON.parse(reply.text).error,
					path.startsWith("/v1/")
						? { message, type: "api_error", param: null, code: null }
						: message,
					path,
				);
			}
		},
		"nothing to embed is 200, and loads the model": async (t, ollama) => {
			for (const [path, body, text] of [
				["/api/embed", { input: [] }, '{"model":"smol","embeddings":[]}'],
				["/api/embed", { input: "" }, '{"model":"smol","embeddings":[]}'],
				["/api/embed", {}, '{"model":"smol","embeddings":[]}'],
				["/api/embeddings", {}, '{"embedding":[]}'],
			] as const)
				t.match(
					await ollama.ask("POST", path, { model: "smol", ...body }),
					{ status: 200, text },
					`${path} ${JSON.stringify(body)}`,
				);
		},
		"an input that is not a text is refused": async (t, ollama) => {
			t.match(
				await ollama.ask("POST", "/api/embed", { model: "smol", input: 5 }),
				{ status: 400, text: '{"error":"invalid input type"}' },
			);
		},
	},
};

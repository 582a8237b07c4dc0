import type { Group } from "../contract.ts";

const user = [{ role: "user", content: "a" }];
/** A body that every call takes but for its model. */
const bodyFor = (model: string) => ({
	model,
	messages: user,
	prompt: "a",
	input: "a",
	max_tokens: 4,
	stream: false,
});
const native = ["/api/generate", "/api/chat", "/api/embed", "/api/embeddings"];
const openai = [
	...["/v1/chat/completions", "/v1/completions"],
	...["/v1/embeddings", "/v1/responses"],
];
const anthropic = ["/v1/messages"];

/** The error of a path's family. */
function errorOf(path: string, type: string, message: string): RegExp {
	const quoted = JSON.stringify(message).replace(/[\\()[\]?.*+]/g, "\\$&");
	if (path.startsWith("/api/")) return new RegExp(`^\\{"error":${quoted}\\}$`);
	if (path.startsWith("/v1/messages"))
		return new RegExp(
			`^\\{"type":"error","error":\\{"type":"${type}","message":${quoted}\\},"request_id":"req_[0-9a-f]{24}"\\}\\n?$`,
		);
	return new RegExp(
		`^\\{"error":\\{"message":${quoted},"type":"${type}","param":null,"code":(null|"invalid_request_error")\\}\\}\\n?$`,
	);
}

/** A name for a report, which a line separator would tear apart. */
function inAscii(text: string): string {
	return JSON.stringify(text).replace(
		/[^ -~]/g,
		(letter) => `\\u${letter.charCodeAt(0).toString(16).padStart(4, "0")}`,
	);
}

/** Names of models that ollama.com runs, on a server that is told not to ask it. */
export const withoutCloud: Group = {
	settings: { noCloud: true },
	cases: {
		"cloud models are off, and it says so": async (t, ollama) => {
			t.match(await ollama.ask("GET", "/api/status"), {
				status: 200,
				text: '{"cloud":{"disabled":true,"source":"env"}}',
			});
		},
		"a cloud model is 403 in one shape for all families": async (t, ollama) => {
			for (const path of [...native, ...openai, ...anthropic])
				t.match(
					await ollama.ask("POST", path, bodyFor("smol:cloud")),
					{
						status: 403,
						text: '{"error":"ollama cloud is disabled: remote model is unavailable"}',
					},
					path,
				);
			const details =
				'{"error":"ollama cloud is disabled: remote model details are unavailable"}';
			t.match(await ollama.ask("POST", "/api/show", { model: "smol:cloud" }), {
				status: 403,
				text: details,
			});
			t.match(await ollama.ask("GET", "/v1/models/smol:cloud"), {
				status: 403,
				text: details,
			});
		},
		"searches of the web are 403": async (t, ollama) => {
			for (const [path, what] of [
				["web_search", "web search"],
				["web_fetch", "web fetch"],
			] as const)
				t.match(
					await ollama.ask("POST", `/api/experimental/${path}`, {
						...{ query: "a", url: "http://a.example/" },
					}),
					{
						status: 403,
						text: `{"error":"ollama cloud is disabled: ${what} is unavailable"}`,
					},
				);
		},
	},
};

/** How a model may be spelt, and what is said of one that is not there. */
export const names: Group = {
	cases: {
		"these spellings reach a model": async (t, ollama) => {
			for (const model of [
				...["smol", "SMOL", "smol:LATEST", "library/smol"],
				...["registry.ollama.ai/library/smol", " smol ", "\u00a0smol"],
				...["\u2028smol", "\u0085smol", "smol:local", "smol:latest:local"],
				"http://registry.ollama.ai/library/smol",
				"X://REGISTRY.OLLAMA.AI/LIBRARY/SMOL:latest",
			])
				t.equal(
					(await ollama.ask("POST", "/api/show", { model })).status,
					200,
					inAscii(model),
				);
			t.match(await ollama.ask("GET", "/v1/models/SMOL"), {
				status: 200,
				text: /^\{"id":"SMOL","object":"model","created":\d+,"owned_by":"library"\}\n?$/,
			});
			t.equal((await ollama.ask("GET", "/v1/models/%73mol")).status, 200);
		},
		"these are no names": async (t, ollama) => {
			for (const model of [
				...["smol:", "//", "https://smol", "smol:latest:latest", "smol/"],
				...["../smol", "*", "\ufeffsmol", "a".repeat(600)],
				`smol@sha256:${"0".repeat(64)}`,
			])
				t.match(
					await ollama.ask("POST", "/api/show", { model }),
					{ status: 400, text: '{"error":"invalid model name"}' },
					inAscii(model.slice(0, 30)),
				);
		},
		"a digest is no name of a model": async (t, ollama) => {
			const { text } = await ollama.ask("GET", "/api/tags");
			const [{ digest }] = JSON.parse(text).models;
			for (const model of [digest.slice(0, 12), `sha256:${digest}`])
				t.equal(
					(await ollama.ask("POST", "/api/show", { model })).status,
					404,
					model,
				);
		},
		"a model that is not there is told in each family's words": async (
			t,
			ollama,
		) => {
			for (const path of [...native, ...openai, ...anthropic]) {
				const reply = await ollama.ask("POST", path, bodyFor("nope"));
				t.match(
					reply,
					{
						status: 404,
						headers: {
							"content-type": path.startsWith("/v1/")
								? "application/json"
								: "application/json; charset=utf-8",
						},
						text: errorOf(
							path,
							"not_found_error",
							/embed/.test(path)
								? 'model "nope" not found, try pulling it first'
								: "model 'nope' not found",
						),
					},
					path,
				);
			}
			t.match(await ollama.ask("POST", "/api/show", { model: "nope" }), {
				status: 404,
				text: `{"error":"model 'nope:latest' not found"}`,
			});
			t.match(await ollama.ask("GET", "/v1/models/nope"), {
				status: 404,
				text: errorOf(
					"/v1/models",
					"not_found_error",
					"model 'nope:latest' not found",
				),
			});
			t.match(await ollama.ask("DELETE", "/api/delete", { model: "nope" }), {
				status: 404,
				text: `{"error":"model 'nope' not found"}`,
			});
			t.match(
				await ollama.ask("POST", "/api/copy", {
					source: "nope",
					destination: "x",
				}),
				{ status: 404, text: '{"error":"model \\"nope\\" not found"}' },
			);
			t.match(
				await ollama.ask("POST", "/api/push", { model: "nope", stream: false }),
				{
					status: 500,
					text: /^\{"error":"open .*manifests\/registry\.ollama\.ai\/library\/nope\/latest: no such file or directory"\}$/,
				},
			);
		},
		"what is no name is 400 in each family's words": async (t, ollama) => {
			for (const path of [...native, ...openai, ...anthropic])
				t.match(
					await ollama.ask("POST", path, bodyFor("smol:")),
					{
						status: 400,
						text: errorOf(path, "invalid_request_error", "invalid model name"),
					},
					path,
				);
			t.match(await ollama.ask("DELETE", "/api/delete", { model: "smol:" }), {
				status: 400,
				text: '{"error":"name \\"smol:\\" is invalid"}',
			});
			t.match(await ollama.ask("POST", "/api/copy", { source: "smol:" }), {
				status: 400,
				text: '{"error":"source \\"smol:\\" is invalid"}',
			});
			for (const path of ["/api/pull", "/api/create"])
				t.match(
					await ollama.ask("POST", path, { model: "smol:" }),
					{ status: 400, text: '{"error":"invalid model name"}' },
					path,
				);
		},
		"a request without a model is told so, in two ways": async (t, ollama) => {
			for (const path of [
				...["/api/generate", "/api/embed"],
				...["/v1/completions", "/v1/embeddings"],
			])
				t.match(
					await ollama.ask("POST", path, bodyFor("")),
					{
						status: 404,
						text: errorOf(path, "not_found_error", "model '' not found"),
					},
					path,
				);
			for (const path of [
				...["/api/chat", "/api/embeddings", "/api/show", "/api/push"],
				...["/v1/chat/completions", "/v1/responses", "/v1/messages"],
			])
				t.match(
					await ollama.ask("POST", path, bodyFor("")),
					{
						status: 400,
						text: errorOf(path, "invalid_request_error", "model is required"),
					},
					path,
				);
		},
		"a name that says :cloud goes to ollama.com, though the model is here":
			async (t, ollama) => {
				for (const model of ["smol:cloud", "smol:latest-cloud"])
					for (const path of [
						...[...native, ...openai, ...anthropic],
						"/api/show",
					])
						t.match(
							await ollama.ask("POST", path, bodyFor(model)),
							{
								status: 502,
								text: /^\{"error":"Post \\"https:\/\/ollama\.com:443\//,
							},
							`${path} ${model}`,
						);
			},
		"a name cannot say :local and :cloud": async (t, ollama) => {
			for (const path of [...native, ...openai, ...anthropic])
				t.match(
					await ollama.ask("POST", path, bodyFor("smol:local:cloud")),
					{
						status: 400,
						text: /use either :local or :cloud, not both: \\"smol:local:cloud\\"/,
					},
					path,
				);
		},
		"a name with a path in it is none of /v1/models": async (t, ollama) => {
			for (const name of ["library%2Fsmol", "a/b"])
				t.equal((await ollama.ask("GET", `/v1/models/${name}`)).status, 404);
		},
	},
};

import type { Client } from "./client.ts";

export const codex: Client = {
	name: "codex",
	title: "Codex",
	source: "run in our tests with Codex 0.171.0; the second form by hand",
	sendsKey: true,
	render({ server, key, model }) {
		const { protocol, host } = new URL(server);
		return {
			snippets: [
				{
					lead: "In ~/.codex/config.toml, the first three lines above all tables:",
					language: "text",
					text: `model = "${model}"
model_provider = "llamagate"
web_search = "disabled"

[model_providers.llamagate]
name = "llamagate"
base_url = "${server}/v1"
env_key = "LLAMAGATE_KEY"
wire_api = "responses"`,
				},
				{
					lead: "Then, in the terminal:",
					language: "sh",
					text: `export LLAMAGATE_KEY="${key}"
codex`,
				},
				{
					lead: "Or without a configuration, by its own provider for Ollama:",
					language: "sh",
					text: `export CODEX_OSS_BASE_URL="${protocol}//x:${key}@${host}/v1"
codex --oss --local-provider ollama -m "${model}" -c 'web_search="disabled"'`,
				},
			],
			notes: [
				"The second form sends the key as Basic, the x before it being any user name. It asks for the list of models and for Ollama's version too, so the key needs the scope read.",
				"Ollama would run Codex's web search at ollama.com on its owner's account, which needs the scope account. Without it leave the search off, as here; else each request is a 403.",
				"Take a model that can call tools, with a context of 64k tokens or more (OLLAMA_CONTEXT_LENGTH on the server). Codex warns that it has no metadata for the model; that is so for every model that is not OpenAI's.",
			],
		};
	},
};

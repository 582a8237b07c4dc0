import type { Client } from "./client.ts";

export const promptfoo: Client = {
	name: "promptfoo",
	title: "promptfoo",
	source: "from promptfoo.dev (the provider ollama); not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In the terminal:",
					language: "sh",
					text: `export OLLAMA_BASE_URL="${server}"
export OLLAMA_API_KEY="${key}"
promptfoo eval`,
				},
				{
					lead: "In promptfooconfig.yaml:",
					language: "yaml",
					text: `providers:
  - ollama:chat:${model}`,
				},
			],
			notes: [
				"An evaluation sends many requests at once: --max-concurrency keeps it within the key's limits.",
			],
		};
	},
};

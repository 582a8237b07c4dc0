import type { Client } from "./client.ts";

export const continueDev: Client = {
	name: "continue",
	title: "Continue",
	source:
		"from the documentation of Continue (docs.continue.dev, 2026) and the schema of @continuedev/config-yaml 1.42; not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In ~/.continue/config.yaml; if there is one, add the entry to its models:",
					language: "yaml",
					text: `name: llamagate
version: 0.0.1
schema: v1
models:
  - name: "${model} on llamagate"
    provider: ollama
    model: "${model}"
    apiBase: "${server}"
    apiKey: "${key}"
    roles:
      - chat
      - edit
      - apply`,
				},
			],
			notes: [
				"Continue sends apiKey as Authorization: Bearer. No /v1 in apiBase with the provider ollama.",
			],
		};
	},
};

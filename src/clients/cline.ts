import type { Client } from "./client.ts";

export const cline: Client = {
	name: "cline",
	title: "Cline",
	source:
		"from Cline's documentation (API Provider: OpenAI Compatible); not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In Cline's settings, API Configuration:",
					language: "text",
					text: `API Provider   OpenAI Compatible
Base URL       ${server}/v1
API Key        ${key}
Model ID       ${model}`,
				},
			],
			notes: [
				"Set the context window there to what the server's model has (OLLAMA_CONTEXT_LENGTH on the server); Cline needs 32k tokens or more.",
			],
		};
	},
};

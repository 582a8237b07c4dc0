import type { Client } from "./client.ts";

export const n8n: Client = {
	name: "n8n",
	title: "n8n",
	source:
		"from the source of @n8n/n8n-nodes-langchain 2.41.1 (the credential Ollama, the node Ollama Chat Model) and docs.n8n.io; not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "Create Credential, Ollama:",
					language: "text",
					text: `Base URL    ${server}
API Key     ${key}`,
				},
			],
			notes: [
				`Save tests it against /api/tags, which needs the scope read. Choose the credential in the node Ollama Chat Model, and there the model, such as ${model}.`,
				`For the node OpenAI Chat Model take a credential OpenAI with the same key and the base URL ${server}/v1.`,
			],
		};
	},
};

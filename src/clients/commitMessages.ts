import type { Client } from "./client.ts";

export const openCommit: Client = {
	name: "opencommit",
	title: "OpenCommit",
	source: "run with OpenCommit 3.3, by hand",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In the terminal, or each line with oco config set in place of export:",
					language: "sh",
					text: `export OCO_AI_PROVIDER="ollama"
export OCO_API_URL="${server}"
export OCO_MODEL="${model}"
export OCO_API_CUSTOM_HEADERS='{"Authorization":"Bearer ${key}"}'
oco`,
				},
			],
			notes: ["No /v1 in the URL."],
		};
	},
};

export const aiCommits: Client = {
	name: "aicommits",
	title: "aicommits",
	source: "from the package's own description; not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In the terminal:",
					language: "sh",
					text: `aicommits config set provider=custom
aicommits config set OPENAI_BASE_URL="${server}/v1"
aicommits config set OPENAI_API_KEY="${key}"
aicommits config set OPENAI_MODEL="${model}"
aicommits config set timeout=120000`,
				},
			],
			notes: [
				"The time-out is in milliseconds; a model that has to be loaded first takes longer than its default.",
			],
		};
	},
};

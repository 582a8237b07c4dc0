import type { Client } from "./client.ts";

export const qwenCode: Client = {
	name: "qwen-code",
	title: "Qwen Code",
	source: "run with Qwen Code 0.24, by hand",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In the terminal:",
					language: "sh",
					text: `export OPENAI_API_KEY="${key}"
export OPENAI_BASE_URL="${server}/v1"
export OPENAI_MODEL="${model}"
qwen`,
				},
			],
			notes: [
				"Its first request is long (tools and rules): the model needs a context of 32k tokens or more (OLLAMA_CONTEXT_LENGTH on the server), and the first token takes its time.",
			],
		};
	},
};

import { type Client, json } from "./client.ts";

export const openCode: Client = {
	name: "opencode",
	title: "OpenCode",
	source: "run in our tests with OpenCode 1.18.33",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "In ~/.config/opencode/opencode.json, merged with what is there:",
					language: "json",
					text: json({
						$schema: "https://opencode.ai/config.json",
						model: `llamagate/${model}`,
						provider: {
							llamagate: {
								npm: "@ai-sdk/openai-compatible",
								name: "llamagate",
								options: { baseURL: `${server}/v1`, apiKey: key },
								models: { [model]: { name: model } },
							},
						},
					}),
				},
			],
			notes: [
				"Not in a project's opencode.json, which is committed. The value of apiKey may also be {env:LLAMAGATE_KEY}, which reads the environment.",
				"Take a model that can call tools, with a context of 64k tokens or more (OLLAMA_CONTEXT_LENGTH on the server).",
			],
		};
	},
};

import { type Client, greeting } from "./client.ts";

export const aiSdk: Client = {
	name: "ai-sdk",
	title: "AI SDK (Vercel)",
	source: "run with ai 7.0 and @ai-sdk/openai-compatible, by hand",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "After npm install ai @ai-sdk/openai-compatible:",
					language: "js",
					text: `import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { streamText } from "ai";

const llamagate = createOpenAICompatible({
  name: "llamagate",
  baseURL: "${server}/v1",
  apiKey: "${key}",
});
const { textStream } = streamText({
  model: llamagate("${model}"),
  prompt: "${greeting}",
});
for await (const text of textStream) process.stdout.write(text);`,
				},
			],
			notes: ["The base URL ends in /v1."],
		};
	},
};

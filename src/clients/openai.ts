import { type Client, greeting } from "./client.ts";

const note =
	"The base URL ends in /v1. The key needs no setting besides: the SDK sends it as Authorization: Bearer.";

export const openaiJs: Client = {
	name: "openai-js",
	title: "OpenAI SDK for JavaScript",
	source: "run in our tests with openai 7.59.0",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "After npm install openai:",
					language: "js",
					text: `import OpenAI from "openai";

const openai = new OpenAI({
  baseURL: "${server}/v1",
  apiKey: "${key}",
});
const stream = await openai.chat.completions.create({
  model: "${model}",
  messages: [{ role: "user", content: "${greeting}" }],
  stream: true,
});
for await (const chunk of stream)
  process.stdout.write(chunk.choices[0]?.delta.content ?? "");`,
				},
			],
			notes: [note],
		};
	},
};

export const openaiPython: Client = {
	name: "openai-python",
	title: "OpenAI SDK for Python",
	source: "run in our tests with openai 3.57.0 for Python",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "After pip install openai:",
					language: "python",
					text: `from openai import OpenAI

client = OpenAI(
    base_url="${server}/v1",
    api_key="${key}",
)
stream = client.chat.completions.create(
    model="${model}",
    messages=[{"role": "user", "content": "${greeting}"}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)`,
				},
			],
			notes: [note],
		};
	},
};

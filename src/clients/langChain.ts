import { type Client, greeting } from "./client.ts";

export const langChain: Client = {
	name: "langchain",
	title: "LangChain",
	source:
		"JavaScript: run with @langchain/ollama 1.3.0, by hand. Python: run in our tests with langchain-ollama 1.1.0",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "Python, after pip install langchain-ollama:",
					language: "python",
					text: `from langchain_ollama import ChatOllama

llm = ChatOllama(
    base_url="${server}",
    model="${model}",
    client_kwargs={"headers": {"Authorization": "Bearer ${key}"}},
)
for chunk in llm.stream("${greeting}"):
    print(chunk.content, end="", flush=True)`,
				},
				{
					lead: "JavaScript, after npm install @langchain/ollama @langchain/core:",
					language: "js",
					text: `import { ChatOllama } from "@langchain/ollama";

const llm = new ChatOllama({
  baseUrl: "${server}",
  model: "${model}",
  headers: { Authorization: "Bearer ${key}" },
});
for await (const chunk of await llm.stream("${greeting}"))
  process.stdout.write(String(chunk.content));`,
				},
			],
			notes: [
				`OllamaEmbeddings takes the same settings. ChatOpenAI works, too, with the base URL ${server}/v1 and the key as its API key.`,
			],
		};
	},
};

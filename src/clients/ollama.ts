import { type Client, greeting } from "./client.ts";

export const ollamaCli: Client = {
	name: "ollama-cli",
	title: "The stock ollama command",
	source: "run in our tests with Ollama 0.34.0",
	sendsKey: false,
	render({ server, model }) {
		return {
			snippets: [
				{
					lead: "1. Have a signing key on this machine; this makes one if there is none, and shows its public half:",
					language: "sh",
					text: `mkdir -p ~/.ollama
[ -f ~/.ollama/id_ed25519 ] || ssh-keygen -q -t ed25519 -N '' -f ~/.ollama/id_ed25519
cat ~/.ollama/id_ed25519.pub`,
				},
				{
					lead: "2. Send that file to the server's owner, who registers field 2 of it (the long text that begins with AAAA) under a name of their choice:",
					language: "sh",
					text: "sudo llamagate keys add NAME --ollama-key id_ed25519.pub",
				},
				{
					lead: "3. Then, on this machine:",
					language: "sh",
					text: `export OLLAMA_HOST=${server}
export OLLAMA_AUTH=1
ollama run ${model}`,
				},
			],
			notes: [
				"The stock ollama command cannot send a llamagate key, in no setting and no variable. With OLLAMA_AUTH=1 it signs each request with ~/.ollama/id_ed25519 instead, and llamagate checks the signature. The private half never leaves this machine.",
				'If the server does not know the signature, the command says "something went wrong, please see the ollama server logs for details", and so it does when Ollama is stopped: its first call is a HEAD, whose reply has no text to show. The gate\'s log says which it was. Do not sign in to ollama.com; have the key registered.',
				"The signature's form is the one that ollama.com uses. Set OLLAMA_AUTH only for servers that you trust.",
			],
		};
	},
};

export const ollamaJs: Client = {
	name: "ollama-js",
	title: "ollama for JavaScript",
	source: "run in our tests with ollama 0.6.4",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "After npm install ollama:",
					language: "js",
					text: `import { Ollama } from "ollama";

const ollama = new Ollama({
  host: "${server}",
  headers: { Authorization: "Bearer ${key}" },
});
const stream = await ollama.chat({
  model: "${model}",
  messages: [{ role: "user", content: "${greeting}" }],
  stream: true,
});
for await (const part of stream) process.stdout.write(part.message.content);`,
				},
			],
			notes: [
				"It sends a key only when told to, as here: it reads no OLLAMA_API_KEY for a server of your own.",
			],
		};
	},
};

export const ollamaPython: Client = {
	name: "ollama-python",
	title: "ollama for Python",
	source: "run in our tests with ollama 0.6.3 for Python",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "After pip install ollama:",
					language: "python",
					text: `from ollama import Client

client = Client(
    host="${server}",
    headers={"Authorization": "Bearer ${key}"},
)
stream = client.chat(
    model="${model}",
    messages=[{"role": "user", "content": "${greeting}"}],
    stream=True,
)
for part in stream:
    print(part["message"]["content"], end="", flush=True)`,
				},
			],
			notes: [
				"Without headers it sends the environment's OLLAMA_API_KEY to whatever server it talks to. Do not let a key for ollama.com go to another server, or this one to ollama.com.",
			],
		};
	},
};

import type { Client } from "./client.ts";

export const openWebUi: Client = {
	name: "open-webui",
	title: "Open WebUI",
	source: "run in our tests with Open WebUI 0.12.4",
	sendsKey: true,
	render({ server, key, secret = "SECRET" }) {
		const configs = JSON.stringify({ 0: { enable: true, key } });
		return {
			snippets: [
				{
					lead: "In its settings, as an administrator: Admin Panel, Settings, Connections, Ollama API, Add Connection:",
					language: "text",
					text: `URL     ${server}
Auth    Bearer
Key     ${key}`,
				},
				{
					lead: "Or, for a new installation, in a file open-webui.env of mode 0600:",
					language: "text",
					text: `OLLAMA_BASE_URLS=${server}
OLLAMA_API_CONFIGS=${configs}
ENABLE_OPENAI_API=false`,
				},
				{
					lead: "So that the gate knows who of its people is asking (the key was made with llamagate keys add NAME --people open-webui), in that file too:",
					language: "text",
					text: `ENABLE_FORWARD_USER_INFO_HEADERS=true
FORWARD_USER_INFO_HEADER_JWT_SECRET=${secret}`,
				},
				{
					lead: "which Docker is given:",
					language: "sh",
					text: `docker run -d --name open-webui -p 127.0.0.1:3000:8080 \\
  -v open-webui:/app/backend/data --env-file open-webui.env \\
  ghcr.io/open-webui/open-webui:main`,
				},
				{
					lead: "An older version, which ignores OLLAMA_API_CONFIGS (those of 2025 do), can speak OpenAI's API instead; in that file:",
					language: "text",
					text: `ENABLE_OLLAMA_API=false
OPENAI_API_BASE_URLS=${server}/v1
OPENAI_API_KEYS=${key}`,
				},
			],
			notes: [
				"Open WebUI keeps these settings in its database from its first start on and reads the variables no more: after that, change them in the Admin Panel.",
				...(secret === "SECRET"
					? [
							"SECRET is what is in NAME.secret beside the server's keys file, in place of NAME the key's. On the server --secret-file FILE puts it in, and makes it where there is none.",
						]
					: []),
				"The key is Open WebUI's, not its users'. Without the two settings about people llamagate sees one client, and Open WebUI alone decides who may use it; with them, and a rule about people, each person has their own models, scopes and share (docs/people.md). Each sees the models that the gate leaves them, unless Open WebUI's Cache Base Model List is on. To let administrators pull and delete models from there, the key needs the scope manage.",
			],
		};
	},
};

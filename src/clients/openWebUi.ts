import type { Client } from "./client.ts";

export const openWebUi: Client = {
	name: "open-webui",
	title: "Open WebUI",
	source: "run in our tests with Open WebUI 0.12.4",
	sendsKey: true,
	render({ server, key }) {
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
				"The key is Open WebUI's, not its users': llamagate sees one client, and Open WebUI decides who may use it. To let administrators pull and delete models from there, the key needs the scope manage.",
			],
		};
	},
};

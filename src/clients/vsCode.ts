import { type Client, json } from "./client.ts";

export const vsCode: Client = {
	name: "vscode",
	title: "Visual Studio Code",
	source:
		"from the source of Ollama's extension 0.0.8 (August 2026) and of VS Code's Custom Endpoint provider (1.122 and newer); not run",
	sendsKey: true,
	render({ server, key, model }) {
		return {
			snippets: [
				{
					lead: "With the extension Ollama (by Ollama; VS Code 1.127 or newer), in the user's settings.json:",
					language: "json",
					text: json({
						"ollama.endpoint": server,
						"ollama.headers": { Authorization: `Bearer ${key}` },
						"settingsSync.ignoredSettings": ["ollama.headers"],
					}),
				},
				{
					lead: "Or without an extension (VS Code 1.122 or newer): run the command Chat: Open Language Models (JSON) and add this; then run Chat: Manage Language Models, choose Update API Key on llamagate, and paste the key there:",
					language: "json",
					text: json([
						{
							name: "llamagate",
							vendor: "customendpoint",
							apiType: "chat-completions",
							models: [
								{
									id: model,
									name: model,
									url: `${server}/v1/chat/completions`,
									toolCalling: true,
									vision: false,
									maxInputTokens: 28672,
									maxOutputTokens: 4096,
								},
							],
						},
					]),
				},
			],
			notes: [
				"What cannot be done: the provider Ollama that is built into Copilot Chat takes a URL and no key, so every call of it is refused. Suggestions while typing come from GitHub's models, not from here.",
				"VS Code takes the Custom Endpoint's key from its own secret storage only; one that is written into the file is ignored. Set the token limits to what the server's context holds.",
				"The first snippet has the key in settings.json. Its last line keeps Settings Sync from uploading it; do not put it into a workspace's settings.",
			],
		};
	},
};

import { type Client, type Connection, json } from "./client.ts";

/** The provider's entry, without its models. */
export function providerSettings({ server, key }: Connection) {
	return {
		// Without /v1: OpenClaw's OpenAI mode breaks tool calls (docs.openclaw.ai/providers/ollama).
		baseUrl: server,
		apiKey: key,
		api: "ollama",
		timeoutSeconds: 900,
	};
}

export const openClaw: Client = {
	name: "openclaw",
	title: "OpenClaw",
	source: "run in our tests with OpenClaw 2026.9.6",
	sendsKey: true,
	render(connection) {
		const { model } = connection;
		return {
			snippets: [
				{
					lead: "In ~/.openclaw/openclaw.json, merged with what is there (--write does it for you):",
					language: "json",
					text: json({
						models: {
							providers: {
								ollama: {
									...providerSettings(connection),
									models: [{ id: model, name: model }],
								},
							},
						},
						agents: { defaults: { model: { primary: `ollama/${model}` } } },
					}),
				},
			],
			notes: [
				"No /v1 in the URL: it breaks tool calls. Check the file with: openclaw config validate",
				"OpenClaw sets shift in every request, which changes how the server's model runs for everybody: a key that is held to some models refuses it with a 403, unless its denyOptions in the keys file leave out shift.",
				`If agents.defaults.modelPolicy.allow has entries, only those models may be chosen: add "ollama/${model}" to it. Before OpenClaw 2026.8.1 that list was agents.defaults.models, where it had entries.`,
			],
		};
	},
};

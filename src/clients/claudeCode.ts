import { type Client, json } from "./client.ts";

export const claudeCode: Client = {
	name: "claude-code",
	title: "Claude Code",
	source: "run in our tests with Claude Code 2.1.332",
	sendsKey: true,
	render({ server, key, model }) {
		const env = {
			ANTHROPIC_BASE_URL: server,
			ANTHROPIC_AUTH_TOKEN: key,
			ANTHROPIC_MODEL: model,
			// What it calls for small jobs and by tier; without these it asks for Anthropic's own models.
			ANTHROPIC_DEFAULT_HAIKU_MODEL: model,
			ANTHROPIC_DEFAULT_SONNET_MODEL: model,
			ANTHROPIC_DEFAULT_OPUS_MODEL: model,
		};
		return {
			snippets: [
				{
					lead: "In ~/.claude/settings.json, merged with what is there:",
					language: "json",
					text: json({ env }),
				},
				{
					lead: "Or for one terminal:",
					language: "sh",
					text: [
						...Object.entries(env).map(
							([name, value]) => `export ${name}="${value}"`,
						),
						// Where one is set, the gate is asked with it as well.
						'export ANTHROPIC_API_KEY=""',
						"claude",
					].join("\n"),
				},
			],
			notes: [
				"No /v1 in the URL. ANTHROPIC_API_KEY is emptied because Claude Code sends it beside the token, and a key for another service has no business there.",
				"Claude Code takes a model that it does not know for one with a context of 1m tokens. CLAUDE_CODE_MAX_CONTEXT_TOKENS, beside the others, tells it what the server has.",
				"Not in a project's .claude/settings.json, which is committed. Take a model that can call tools, with a context of 64k tokens or more (OLLAMA_CONTEXT_LENGTH on the server).",
			],
		};
	},
};

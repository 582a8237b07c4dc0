import { claudeCode } from "../../../src/clients/claudeCode.ts";
import { realParts } from "../parts.ts";
import type { Attempt, Invocation } from "./cases.ts";
import { clientFolder } from "./install.ts";
import { snippet } from "./snippets.ts";

/** How Claude Code is run: one question, without a terminal. */
export function invokeClaudeCode({
	task,
	server,
	key,
	model,
}: Attempt): Invocation {
	const folder = clientFolder(realParts().folder, "claude-code");
	return {
		command: [
			`${folder}/node_modules/.bin/claude`,
			"-p",
			"Hello!",
			...(task === "chat"
				? []
				: [
						"--output-format",
						"stream-json",
						"--include-partial-messages",
						"--verbose",
					]),
		],
		files: {
			".claude/settings.json": snippet(claudeCode, "json", {
				server,
				key,
				model,
			}),
		},
		env: {
			CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC: "1",
			DISABLE_AUTOUPDATER: "1",
			// Ten by itself, over minutes.
			CLAUDE_CODE_MAX_RETRIES: "1",
		},
	};
}

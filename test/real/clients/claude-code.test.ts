import { claudeCode } from "../../../src/clients/claudeCode.ts";
import { realParts } from "../parts.ts";
import { tryClient } from "./cases.ts";
import { clientFolder, pinned } from "./install.ts";
import { snippet } from "./snippets.ts";

const { package: name, version } = pinned("claude-code");

tryClient({
	name: "claude-code",
	title: `${name} ${version} (npm)`,
	version,
	typed: '`claude -p "Hello!"`, set to ask twice; by itself up to eleven times',
	begins: /text_delta/,
	abortsItself: false,
	invoke({ task, server, key, model }) {
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
	},
});

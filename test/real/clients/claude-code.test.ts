import { tryClient } from "./cases.ts";
import { invokeClaudeCode } from "./claudeCode.ts";
import { pinned } from "./install.ts";

const { package: name, version } = pinned("claude-code");

tryClient({
	name: "claude-code",
	title: `${name} ${version} (npm)`,
	version,
	typed: '`claude -p "Hello!"`, set to ask twice; by itself up to eleven times',
	begins: /text_delta/,
	abortsItself: false,
	invoke: invokeClaudeCode,
});

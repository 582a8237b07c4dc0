import { codex } from "../../../src/clients/codex.ts";
import { realParts } from "../parts.ts";
import { tryClient } from "./cases.ts";
import { clientFolder, pinned } from "./install.ts";
import { snippet, withArguments } from "./snippets.ts";

const { package: name, version } = pinned("codex");

/** By itself it asks six times after a 401 and thirty times after a 502. */
const fewRetries = ["request_max_retries=0", "stream_max_retries=1"]
	.map((setting) => `-c model_providers.llamagate.${setting}`)
	.join(" ");

tryClient({
	name: "codex",
	title: `${name} ${version} (npm)`,
	version,
	typed:
		'`codex exec "Hello!"`, set to ask twice; by itself six times after a 401, thirty times after a 502',
	abortsItself: false,
	invoke({ server, key, model }) {
		const folder = clientFolder(realParts().folder, "codex");
		const connection = { server, key, model };
		return {
			// The last line that is printed starts it at a terminal.
			command: [
				"sh",
				"-c",
				withArguments(
					snippet(codex, "sh", connection),
					`exec --skip-git-repo-check ${fewRetries} "Hello!"`,
				),
			],
			files: {
				".codex/config.toml": snippet(codex, "text", connection),
				"bin/codex": `#!/bin/sh
exec ${folder}/node_modules/.bin/codex "$@"
`,
			},
		};
	},
});

import { openClaw } from "../../../src/clients/openClaw.ts";
import { realParts } from "../parts.ts";
import { tryClient } from "./cases.ts";
import { clientFolder, pinned } from "./install.ts";
import { snippet } from "./snippets.ts";

const { package: name, version } = pinned("openclaw");

tryClient({
	name: "openclaw",
	title: `${name} ${version} (npm)`,
	version,
	typed:
		'`openclaw infer model run --local --prompt "Hello!"`, with a key whose `denyOptions` leave out `shift`',
	abortsItself: false,
	// Without rules for options, a key that has models refuses `shift`, which OpenClaw sets.
	rules: { denyOptions: ["num_batch", "num_gpu", "main_gpu", "num_thread"] },
	invoke({ server, key, model }) {
		const folder = clientFolder(realParts().folder, "openclaw");
		return {
			command: [
				`${folder}/node_modules/.bin/openclaw`,
				"infer",
				"model",
				"run",
				"--local",
				"--prompt",
				"Hello!",
			],
			files: {
				".openclaw/openclaw.json": snippet(openClaw, "json", {
					server,
					key,
					model,
				}),
			},
		};
	},
});

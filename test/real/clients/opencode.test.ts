import { openCode } from "../../../src/clients/openCode.ts";
import { realParts } from "../parts.ts";
import { tryClient } from "./cases.ts";
import { clientFolder, pinned } from "./install.ts";
import { snippet } from "./snippets.ts";

const { package: name, version } = pinned("opencode");

tryClient({
	name: "opencode",
	title: `${name} ${version} (npm)`,
	version,
	typed:
		'`opencode run "Hello!"`, stopped after its second request where Ollama is away: it asks nine times, over two minutes, and then shows what the gate says',
	abortsItself: false,
	keepsAsking: true,
	invoke({ server, key, model }) {
		const folder = clientFolder(realParts().folder, "opencode");
		return {
			command: [`${folder}/node_modules/.bin/opencode`, "run", "Hello!"],
			files: {
				".config/opencode/opencode.json": snippet(openCode, "json", {
					server,
					key,
					model,
				}),
			},
			env: {
				OPENCODE_DISABLE_AUTOUPDATE: "1",
				OPENCODE_DISABLE_MODELS_FETCH: "1",
			},
		};
	},
});

import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import t from "tap";
import { ollamaCli } from "../../../src/clients/ollama.ts";
import { testKeys } from "../../support/gate.ts";
import { newestOllama, realParts } from "../parts.ts";
import { tryClient } from "./cases.ts";
import { withArguments } from "./snippets.ts";

const folder = mkdtempSync(path.join(tmpdir(), "llamagate-test-"));
t.teardown(() => rmSync(folder, { recursive: true }));

/** A key pair as ssh-keygen makes it, which is what `llamagate connect ollama-cli` says to do. */
function keyPair(name: string) {
	const file = path.join(folder, name);
	execFileSync("ssh-keygen", ["-q", "-t", "ed25519", "-N", "", "-f", file]);
	return {
		secret: readFileSync(file, "utf8"),
		field2: readFileSync(`${file}.pub`, "utf8").split(" ")[1] ?? "",
	};
}
const known = keyPair("known");
const stranger = keyPair("stranger");

tryClient({
	name: "ollama-cli",
	title: `ollama ${newestOllama}, the command, which signs its requests`,
	version: newestOllama,
	typed: '`ollama run MODEL "Hello!"`',
	begins: /\d/,
	abortsItself: false,
	rules: { ollamaKey: known.field2 },
	invoke({ server, key, model }) {
		const { snippets } = ollamaCli.render({ server, key, model });
		return {
			// The last line that is printed is "ollama run MODEL".
			command: [
				"sh",
				"-c",
				withArguments(snippets.at(-1)?.text ?? "", '"Hello!"'),
			],
			files: {
				".ollama/id_ed25519":
					key === testKeys.wrong ? stranger.secret : known.secret,
				"bin/ollama": `#!/bin/sh\nexec ${realParts().program(`ollama-${newestOllama}`)} "$@"\n`,
			},
		};
	},
});

import { readFile } from "node:fs/promises";
import path from "node:path";
import { clients } from "../../../src/clients/clients.ts";
import { realParts } from "../parts.ts";
import { type Attempt, type Invocation, tryClient } from "./cases.ts";
import { clientFolder, pinned } from "./install.ts";

/**
 * Tries a library: a stream by what `llamagate connect` prints, to the letter,
 * and the rest by the program of that name in programs/.
 *
 * @param printed whether `llamagate connect` knows it, under its name or another
 */
export function tryLibrary(name: string, printed: string | undefined): void {
	const { registry, package: library, version } = pinned(name);
	const isPython = registry === "pypi";
	const ending = isPython ? "py" : "mjs";
	tryClient({
		name,
		title: `${library} ${version} (${isPython ? "PyPI" : "npm"})`,
		version,
		typed: `a program (test/real/clients/programs/${name}.${ending})${printed === undefined ? "" : `; the stream by what \`llamagate connect ${printed}\` prints`}`,
		begins: /\d/,
		abortsItself: true,
		invoke: (attempt) => invokeLibrary(name, printed, attempt),
	});
}

/** How a library is run: see `tryLibrary`. */
export async function invokeLibrary(
	name: string,
	printed: string | undefined,
	{ task, server, key, model }: Attempt,
): Promise<Invocation> {
	const isPython = pinned(name).registry === "pypi";
	const ending = isPython ? "py" : "mjs";
	const folder = clientFolder(realParts().folder, name);
	const client = clients.find((one) => one.name === printed);
	const snippet = client
		?.render({ server, key, model })
		.snippets.find(({ language }) => language === (isPython ? "python" : "js"));
	const program = await readFile(
		path.join(import.meta.dirname, "programs", `${name}.${ending}`),
		"utf8",
	);
	return {
		command: isPython
			? [path.join(folder, "bin/python"), "-"]
			: [process.execPath, "--input-type=module", "-"],
		// Where Node looks for what a program on its standard input imports.
		...(isPython ? {} : { cwd: folder }),
		env: { SERVER: server, KEY: key, MODEL: model, TASK: task },
		input: task === "stream" && snippet ? snippet.text : program,
	};
}

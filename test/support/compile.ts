import { execFile } from "node:child_process";
import path from "node:path";
import { promisify } from "node:util";

const project = path.join(import.meta.dirname, "../..");

/**
 * Compiles a project of the tree, as it is now. Whether its types are right is
 * for others to say.
 *
 * @param config the folder with its tsconfig.json, or such a file, as seen from the tree
 */
export async function compile(config: string, target: string): Promise<void> {
	await promisify(execFile)(
		"env",
		[
			// tap puts itself into every child, and the compiler does not survive that.
			...["--unset=NODE_OPTIONS", process.execPath],
			path.join(project, "node_modules/typescript/bin/tsc"),
			...["-p", config, "--noCheck", "--outDir", target],
		],
		{ cwd: project },
	);
}

import { execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

const made = new Map<string, string>();

/**
 * The folder of a tree's program as it is published, with `bin` and `dist`: built
 * anew from a tree that says how, else the tree itself, where it has been built
 * (`npm ci && npm run build`).
 */
export function installedProgram(tree: string): string {
	if (!existsSync(path.join(tree, "scripts/build/main.ts"))) {
		if (existsSync(path.join(tree, "dist/main.js"))) return tree;
		throw new Error(`${tree} has not been built: npm ci && npm run build`);
	}
	let folder = made.get(tree);
	if (folder === undefined) {
		const fresh = mkdtempSync(path.join(tmpdir(), "llamagate-installed-"));
		process.once("exit", () => rmSync(fresh, { recursive: true, force: true }));
		execFileSync(process.execPath, ["scripts/build/main.ts", "--into", fresh], {
			cwd: tree,
		});
		for (const name of ["bin", "package.json"])
			cpSync(path.join(tree, name), path.join(fresh, name), {
				recursive: true,
			});
		made.set(tree, fresh);
		folder = fresh;
	}
	return folder;
}

/** The file that runs the commands of a published program. */
export function scriptOf(folder: string): string {
	// Where the sources lie beside it, bin/ would run those.
	return existsSync(path.join(folder, "src"))
		? path.join(folder, "dist/main.js")
		: path.join(folder, "bin/llamagate.js");
}

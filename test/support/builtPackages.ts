import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { madeOnce } from "./madeOnce.ts";

const execute = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
const store = path.join(os.tmpdir(), "llamagate-packages");

/** The programs that this module runs, besides npm. */
export const packageTools = ["dpkg-deb", "flock", "git"];

/** What a packager's shell has: nothing of npm's, and this Node. tap adds its NODE_OPTIONS all the same. */
export const packagerEnvironment: NodeJS.ProcessEnv = {
	...Object.fromEntries(
		Object.entries(process.env).filter(([name]) => !/^(npm_|CI$)/.test(name)),
	),
	PATH: `${path.dirname(process.execPath)}:${process.env.PATH}`,
};

/**
 * The folder with all packages that `npm run package:deb` makes of this tree as
 * it is now. The first call takes a minute, later ones, also of other
 * processes, find it unless the tree has changed.
 */
export async function builtPackages(): Promise<string> {
	const digest = createHash("sha256");
	for (const file of await sourceFiles())
		digest.update(`${file}\0`).update(await readFile(path.join(root, file)));
	const name = digest.digest("hex").slice(0, 12);
	const folder = path.join(store, name);
	await madeOnce(
		folder,
		`find "$(dirname "$1")" -mindepth 1 -maxdepth 1 -mmin +600 -exec rm -rf {} +
		cd "$2"
		npm run package:deb -- --out "$1"`,
		[root],
		packagerEnvironment,
	);
	return folder;
}

/** The files that packages are made from, relative to the checkout. */
export async function sourceFiles(): Promise<string[]> {
	const { stdout } = await execute(
		"git",
		[
			...["ls-files", "--cached", "--others", "--exclude-standard", "-z"],
			...["--deduplicate", "--", ".", ":!test", ":!bench"],
		],
		{ cwd: root, maxBuffer: 1 << 24 },
	);
	const { stdout: gone } = await execute("git", ["ls-files", "-dz"], {
		cwd: root,
	});
	const deleted = new Set(gone.split("\0"));
	return stdout.split("\0").filter((file) => file !== "" && !deleted.has(file));
}

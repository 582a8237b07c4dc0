import { execFile } from "node:child_process";
import { createHash } from "node:crypto";
import { readdir, readFile, writeFile } from "node:fs/promises";
import os from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { madeOnce } from "./madeOnce.ts";
import { temporaryFolder } from "./temporaryFolder.ts";

const execute = promisify(execFile);
const root = path.join(import.meta.dirname, "../..");
const store = path.join(os.tmpdir(), "llamagate-packages");

/** The programs that this module runs, besides npm. */
export const packageTools = ["dpkg-deb", "flock", "git"];

/** What a packager's shell has: nothing of npm's, and this Node. */
export const packagerEnvironment: NodeJS.ProcessEnv = {
	...Object.fromEntries(
		Object.entries(process.env).filter(([name]) => !/^(npm_|CI$)/.test(name)),
	),
	PATH: `${path.dirname(process.execPath)}:${process.env.PATH}`,
	// Packed in a hurry; a minute of xz for each finds no fault.
	DPKG_DEB_COMPRESSOR_TYPE: "gzip",
	DPKG_DEB_COMPRESSOR_LEVEL: "1",
};

/**
 * The folder with all packages that `npm run package:deb` makes of this tree as
 * it is now. The first call takes a minute, later ones, also of other
 * processes, find it unless the tree has changed.
 */
export async function builtPackages(): Promise<string> {
	// The packages bear the time of the commit.
	const digest = await digestOf(await commitTime(), await sourceFiles());
	const folder = path.join(store, digest);
	await madeOnce(
		folder,
		`find "$(dirname "$1")" -mindepth 1 -maxdepth 1 -mmin +600 -exec rm -rf {} +
		cd "$2"
		npm run package:deb -- --architecture amd64 --architecture arm64 --out "$1"`,
		async () => ({ args: [root], environment: packagerEnvironment }),
	);
	return folder;
}

/** The built package for this machine's architecture. */
export async function debianPackage(): Promise<string> {
	const folder = await builtPackages();
	const architecture = process.arch === "arm64" ? "arm64" : "amd64";
	const [name = ""] = (await readdir(folder)).filter((file) =>
		file.endsWith(`_${architecture}.deb`),
	);
	return path.join(folder, name);
}

/**
 * The same package as version 99.0-1, whose makers have changed the settings
 * that come with it. It goes with the test.
 */
export async function laterPackage(
	t: Parameters<typeof temporaryFolder>[0],
	file: string,
): Promise<string> {
	const folder = await temporaryFolder(t);
	const tree = path.join(folder, "tree");
	await execute("dpkg-deb", ["--raw-extract", file, tree]);
	const control = path.join(tree, "DEBIAN/control");
	const text = await readFile(control, "utf8");
	await writeFile(control, text.replace(/^Version: .*$/m, "Version: 99.0-1"));
	const shipped = path.join(tree, "etc/llamagate/config.json");
	await writeFile(shipped, (await readFile(shipped, "utf8")).concat("\n"));
	const later = path.join(folder, "llamagate_99.0-1.deb");
	await execute("dpkg-deb", [
		...["--root-owner-group", "-Znone", "--build", tree, later],
	]);
	return later;
}

/** A short name for a text and the content of files, which are relative to the checkout. */
export async function digestOf(
	text: string,
	files: readonly string[],
): Promise<string> {
	const digest = createHash("sha256").update(text);
	for (const file of files)
		digest.update(`${file}\0`).update(await readFile(path.join(root, file)));
	return digest.digest("hex").slice(0, 12);
}

/** The time of the last commit, in seconds since 1970. */
export async function commitTime(): Promise<string> {
	const { stdout } = await execute("git", ["log", "-1", "--format=%ct"], {
		cwd: root,
	});
	return stdout.trim();
}

/** The files of this tree as it is now, relative to it. @param given which, as git takes them; those that packages are made from if none are given */
export async function sourceFiles(...given: string[]): Promise<string[]> {
	const pathspecs = given.length > 0 ? given : [".", ":!test", ":!bench"];
	const { stdout } = await execute(
		"git",
		[
			...["ls-files", "--cached", "--others", "--exclude-standard", "-z"],
			...["--deduplicate", "--", ...pathspecs],
		],
		{ cwd: root, maxBuffer: 1 << 24 },
	);
	const { stdout: gone } = await execute("git", ["ls-files", "-dz"], {
		cwd: root,
	});
	const deleted = new Set(gone.split("\0"));
	return stdout.split("\0").filter((file) => file !== "" && !deleted.has(file));
}

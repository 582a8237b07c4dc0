import { readFileSync, writeFileSync } from "node:fs";

const root = new URL("../../", import.meta.url);

/**
 * Writes files that are made from the code; with `--check` on the command line
 * says which of them no longer agree with it, and fails.
 *
 * @param files contents by path from the repository's root
 */
export function writeOrCheck(files: Readonly<Record<string, string>>): void {
	const stale: string[] = [];
	for (const [name, content] of Object.entries(files)) {
		const file = new URL(name, root);
		if (!process.argv.includes("--check")) writeFileSync(file, content);
		else if (readIfThere(file) !== content) stale.push(name);
	}
	if (stale.length === 0) return;
	process.stderr.write(
		`Not as the code says: ${stale.join(", ")}. Run: npm run docs\n`,
	);
	process.exitCode = 1;
}

function readIfThere(file: URL): string | undefined {
	try {
		return readFileSync(file, "utf8");
	} catch {
		return undefined;
	}
}

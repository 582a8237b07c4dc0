import { execFileSync } from "node:child_process";
import path from "node:path";

/** The checkout. */
export const root = path.join(import.meta.dirname, "..");

/** What a program says, which has to end well. */
export function run(
	file: string,
	args: readonly string[],
	folder = root,
): string {
	return execFileSync(file, args, {
		cwd: folder,
		encoding: "utf8",
		maxBuffer: 1 << 26,
		stdio: ["ignore", "pipe", "inherit"],
	});
}

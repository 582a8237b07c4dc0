import { accessSync, constants } from "node:fs";
import path from "node:path";

/** What a test needs of tap to be left out, or to fail where it must not be. */
interface Reporter {
	fail(message: string): unknown;
	plan(count: number, reason: string): unknown;
}

/** Whether a program is in the PATH, or at one. Nothing is started to find out, since every test asks. */
export function isThere(name: string): boolean {
	const folders = (process.env.PATH ?? "").split(path.delimiter);
	return folders.some((folder) => {
		try {
			accessSync(path.resolve(folder, name), constants.X_OK);
			return true;
		} catch {
			return false;
		}
	});
}

/**
 * Whether a program is there. Where it is not, the test is left out and says
 * so; in CI, which installs everything, it fails.
 */
export function requireTool(t: Reporter, ...names: string[]): boolean {
	const missing = names.filter((name) => !isThere(name));
	return missing.length === 0 || leaveOut(t, `${missing.join(", ")} not found`);
}

/** Whether this is root on Linux, with the same consequence. */
export function requireRoot(t: Reporter): boolean {
	return process.getuid?.() === 0 || leaveOut(t, "needs root");
}

function leaveOut(t: Reporter, reason: string): false {
	if (process.env.CI) t.fail(`${reason}, and CI must not leave a test out`);
	else t.plan(0, reason);
	return false;
}

import { execFile } from "node:child_process";
import { lstat, mkdir, utimes } from "node:fs/promises";
import path from "node:path";
import { promisify } from "node:util";

const execute = promisify(execFile);

/**
 * Makes a folder that several tests and runs share, unless it is there. Of
 * several processes that want it one makes it, and the others wait.
 *
 * @param script lines of sh that fill the folder `$1`, which it has to make;
 *   the folder gets its own name once the script has succeeded
 * @param prepare called where it is not there: `$2` and so on, and the environment
 */
export async function madeOnce(
	folder: string,
	script: string,
	prepare: () => Promise<{
		readonly args: readonly string[];
		readonly environment: NodeJS.ProcessEnv;
	}>,
): Promise<void> {
	const store = path.dirname(folder);
	await mkdir(store, { recursive: true, mode: 0o700 });
	const { uid, mode } = await lstat(store);
	if (uid !== process.getuid?.() || (mode & 0o022) !== 0)
		throw new Error(`${store} can be written by others: remove it`);
	if (await isThere(folder)) return;
	const { args, environment } = await prepare();
	// The lock goes with the process that holds it.
	await execute(
		"flock",
		[
			`${folder}.lock`,
			...["sh", "-euc"],
			`folder=$1 script=$2
			shift 2
			test -d "$folder" && exit
			rm -rf "$folder.partial"
			sh -euc "$script" sh "$folder.partial" "$@" >"$folder.log" 2>&1 || {
				tail -n 40 "$folder.log" >&2
				exit 1
			}
			mv "$folder.partial" "$folder"`,
			...["sh", folder, script, ...args],
		],
		{ env: environment },
	);
}

/** Whether it is; its time then says that it is in use. */
async function isThere(folder: string): Promise<boolean> {
	const now = new Date();
	return utimes(folder, now, now).then(
		() => true,
		() => false,
	);
}

import { lstat } from "node:fs/promises";
import path from "node:path";
import type { Settings } from "../../config/load.ts";
import type { Action } from "../../setup/step.ts";
import type { Installation } from "../../system/installation.ts";
import { formatCommand } from "../../system/run.ts";

/** A file that opens another host, or a Valkey. */
export interface Secret {
	readonly file: string;
	/** What belongs into it. */
	readonly what: string;
}

/** The files by which the configuration has other hosts and Valkey opened, each once. */
export function secretsOf({
	hosts,
	state,
}: Pick<Settings, "hosts" | "state">): readonly Secret[] {
	const secrets = new Map<string, string>();
	for (const { name, keyFile } of hosts ?? [])
		if (keyFile !== undefined)
			secrets.set(keyFile, `the key that ${name} has given this gate`);
	if (state?.passwordFile !== undefined)
		secrets.set(state.passwordFile, "the password of Valkey's user");
	return [...secrets].map(([file, what]) => ({ file, what }));
}

const wantedMode = 0o640;

/**
 * Gives a secret to root, for the daemon's group to read; or says why not. Its
 * content is nobody's but the file's: the journal keeps none of it.
 *
 * @param group the number of the daemon's group; `undefined` while there is none
 */
export async function guard(
	{ file, what }: Secret,
	{ folder, user }: Installation,
	group: number | undefined,
): Promise<readonly Action[] | string> {
	if (path.dirname(file) !== folder)
		return `${file} is not in ${folder}, the one folder that the gate sees; move it there and name it so in the configuration`;
	const stats = await lstat(file).catch(({ code }: NodeJS.ErrnoException) => {
		if (code === "ENOENT") return undefined;
		throw new Error(`${file} cannot be looked at (${code})`);
	});
	if (stats === undefined)
		return `${file} is not there, and is to hold ${what}; paste it, then Ctrl-D: ${formatCommand(["sudo", "install", "-o", "root", "-g", user, "-m", "640", "/dev/stdin", file])}`;
	if (!stats.isFile()) return `${file} is not a file of its own; make it one`;
	const mode = stats.mode & 0o7777;
	const actions: Action[] = [];
	if (stats.uid !== 0 || stats.gid !== group)
		actions.push({
			kind: "command",
			command: ["chown", `root:${user}`, file],
			undo: [["chown", `${stats.uid}:${stats.gid}`, file]],
		});
	if (mode !== wantedMode)
		actions.push({
			kind: "command",
			command: ["chmod", wantedMode.toString(8), file],
			undo: [["chmod", mode.toString(8), file]],
		});
	return actions;
}

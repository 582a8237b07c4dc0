import { lstat, unlink } from "node:fs/promises";
import { connect } from "node:net";

/**
 * Removes a socket file that nobody answers on: it is left from a process that
 * was killed.
 *
 * @returns whether a program answers on it
 */
export async function removeStaleSocket(path: string): Promise<boolean> {
	const code = await new Promise<string | undefined>((resolve) => {
		const socket = connect(path, () => {
			socket.destroy();
			resolve(undefined);
		});
		socket.once("error", (error: NodeJS.ErrnoException) => resolve(error.code));
	});
	if (code !== "ECONNREFUSED") return code === undefined;
	// An ordinary file answers the same, and belongs to another.
	const stats = await lstat(path).catch(() => undefined);
	if (stats?.isSocket() === true) await unlink(path);
	return false;
}

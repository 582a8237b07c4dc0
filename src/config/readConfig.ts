import { userInfo } from "node:os";
import { BadFileError } from "../errors.ts";
import { NoOrdinaryFile, readOrdinaryFile } from "./ordinaryFile.ts";

/**
 * The text of a configuration file. It names the keys file, the sources and the
 * upstream: who may write it may let anybody in.
 *
 * @throws {BadFileError} if it cannot be read, or if others than its owner may write it
 */
export async function readConfig(file: string): Promise<string> {
	try {
		const { text, stats } = await readOrdinaryFile(file);
		const { mode, uid, gid } = stats;
		// A group of one's own, as some systems give it to each user, is nobody else.
		const ownGroup =
			gid === uid || (uid === process.getuid?.() && gid === process.getgid?.());
		if ((mode & (ownGroup ? 0o002 : 0o022)) !== 0)
			throw new BadFileError(file, [
				{
					path: "",
					message: `others than its owner may write to it (mode ${formatMode(mode)}); run: sudo chmod go-w ${file}`,
				},
			]);
		return text;
	} catch (error) {
		if (error instanceof BadFileError) throw error;
		throw unreadable(
			file,
			error,
			"Make one with sudo llamagate setup, or copy config.example.json there, or name another file with --config.",
		);
	}
}

/** Who this process is: a name, or in a container that has no list of users a number. */
export function userName(): string {
	try {
		return userInfo().username;
	} catch {
		return String(process.getuid?.());
	}
}

/** `0644`, as chmod writes it. */
export function formatMode(mode: number): string {
	return (mode & 0o7777).toString(8).padStart(4, "0");
}

/** Says why a file could not be read, in the words of `BadFileError`. */
export function unreadable(
	file: string,
	error: unknown,
	advice: string,
): BadFileError {
	const { code } = error as NodeJS.ErrnoException;
	const reason =
		error instanceof NoOrdinaryFile
			? error.message
			: code === "ENOENT"
				? `the file does not exist. ${advice}`
				: code === "EACCES"
					? // Who runs a daemon as root for that has a worse one.
						`the user ${userName()} may not read it; use sudo, or where a daemon runs as ${userName()}, let that user read it (chown, chmod)`
					: code === "ERR_ACCESS_DENIED"
						? "Node was started with --permission; name its folder with --allow-fs-read, in a drop-in or in NODE_OPTIONS"
						: `cannot be read (${code ?? String(error)})`;
	return new BadFileError(
		file,
		[{ path: "", message: reason }],
		code === "ENOENT" ? `${file} does not exist. ${advice}` : undefined,
	);
}

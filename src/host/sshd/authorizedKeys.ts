import { constants, type Stats } from "node:fs";
import { open, realpath, stat } from "node:fs/promises";
import path from "node:path";
import { outputOf, runProgram } from "../../system/run.ts";

const mostKeyFileLength = 262_144;
/** Three times what an RSA key of 16,384 bits takes. */
const mostKeyLineLength = 8_192;

/** The lines of an authorized_keys that give a shell to anyone who has the key, wherever they come from (sshd(8)). */
export function plainKeys(text: string): string[] {
	// A user's own file: what no key would be is not looked at for long.
	const lines = text.slice(0, mostKeyFileLength).split("\n");
	return lines.filter((untrimmed) => {
		const line = untrimmed.trimStart();
		if (line.length > mostKeyLineLength) return false;
		const [, options] =
			/^\s*(?:(.*?)\s)?(?:ssh|ecdsa|sk)-[\w@.-]+\s+AAAA[\w+/=]{40,}/.exec(
				line,
			) ?? [];
		return (
			/^\s*[^#\s]/.test(line) &&
			/\sAAAA/.test(line) &&
			!/\b(command|from|expiry-time|cert-authority)\b/i.test(options ?? "")
		);
	});
}

/** The file of a user's that holds a key that sshd would take. */
export async function installedKey(
	user: string,
	settings: ReadonlyMap<string, string>,
): Promise<string | undefined> {
	const [, , uid, gid, , home] =
		(await outputOf("getent", "passwd", user))?.split(":") ?? [];
	if (home === undefined) return undefined;
	const account = { uid: Number(uid), gid: Number(gid), home };
	const isStrict = settings.get("strictmodes") !== "no";
	const patterns = settings.get("authorizedkeysfile")?.split(" ") ?? [];
	for (const pattern of patterns) {
		const expanded = pattern
			.replaceAll("%h", home)
			.replaceAll("%u", user)
			.replaceAll("%%", "%");
		const file = path.resolve(home, expanded);
		const keys = plainKeys(await readAs(account, file, isStrict));
		if (keys.length > 0 && (await isTaken(keys))) return file;
	}
	return undefined;
}

/** Whether one of some lines is a key, and not only looks like one. */
async function isTaken(keys: readonly string[]): Promise<boolean> {
	const command = ["ssh-keygen", "-l", "-f", "-"];
	const { code } = await runProgram(command, { input: `${keys.join("\n")}\n` });
	return code === 0;
}

interface Account {
	readonly uid: number;
	readonly gid: number;
	readonly home: string;
}

/**
 * O_PATH of open(2), which Node does not name: the name is looked up and nothing
 * is opened, so that a fifo does not wait for a writer, and no device notices.
 */
const lookUpOnly = 0o10_000_000;

/**
 * A user's file as sshd reads it (auth2-pubkeyfile.c, misc.c:safe_path): as that
 * user, by whatever links lead there, and a plain file alone. With StrictModes
 * nobody but root and that user may be able to change it.
 *
 * @returns nothing where sshd would take nothing of it
 */
async function readAs(
	account: Account,
	file: string,
	isStrict: boolean,
): Promise<string> {
	const place = await realpath(file).catch(() => undefined);
	if (place === undefined || !(await isReached(account, place, isStrict)))
		return "";
	// The user may put something else there at any time: what was looked up is what is read.
	const found = await open(place, lookUpOnly | constants.O_NOFOLLOW).catch(
		() => undefined,
	);
	if (found === undefined) return "";
	try {
		const stats = await found.stat();
		if (
			!stats.isFile() ||
			!mayUse(account, stats, 4) ||
			(isStrict && !isSafe(account, stats))
		)
			return "";
		const opened = await open(`/proc/self/fd/${found.fd}`, "r");
		try {
			const { buffer, bytesRead } = await opened.read(
				Buffer.alloc(mostKeyFileLength),
			);
			return buffer.toString("latin1", 0, bytesRead);
		} finally {
			await opened.close();
		}
	} finally {
		await found.close();
	}
}

/** Whether a user gets through the folders above a file, and with StrictModes none of them up to the home lets others change it. */
async function isReached(
	account: Account,
	place: string,
	isStrict: boolean,
): Promise<boolean> {
	const home = await realpath(account.home).catch(() => undefined);
	let isInHome = true;
	let folder = place;
	while (folder !== "/") {
		folder = path.dirname(folder);
		const stats = await stat(folder).catch(() => undefined);
		if (stats === undefined || !mayUse(account, stats, 1)) return false;
		if (isStrict && isInHome && !isSafe(account, stats)) return false;
		if (folder === home) isInHome = false;
	}
	return true;
}

/** Whether the bits of a mode give a user this: 4 to read, 1 to pass through. Of their groups the first alone is asked. */
function mayUse({ uid, gid }: Account, stats: Stats, bit: 4 | 1): boolean {
	if (uid === 0) return true;
	const shift = stats.uid === uid ? 6 : stats.gid === gid ? 3 : 0;
	return ((stats.mode >> shift) & bit) !== 0;
}

/** Whether nobody but root and this user may change it. */
function isSafe({ uid }: Account, stats: Stats): boolean {
	return [0, uid].includes(stats.uid) && (stats.mode & 0o022) === 0;
}

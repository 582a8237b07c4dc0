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

/** The settings that say where keys lie and which are taken. */
export const settingsOfKeys = [
	"authorizedkeysfile",
	"strictmodes",
	"pubkeyacceptedalgorithms",
	"pubkeyacceptedkeytypes",
	"requiredrsasize",
] as const;

/** What sshd would do with the keys of a user. */
export interface InstalledKeys {
	/** The file that holds one that it would take. */
	readonly file: string | undefined;
	/** Some of those that it would not, where it would take none: `DSA of 1024 bits in FILE`. */
	readonly refused: readonly string[];
}

/** The keys of a user that let in anyone who has them, as sshd judges them by these settings. */
export async function installedKeys(
	user: string,
	settings: ReadonlyMap<string, string>,
): Promise<InstalledKeys> {
	const [, , uid, gid, , home] =
		(await outputOf("getent", "passwd", user))?.split(":") ?? [];
	if (home === undefined) return { file: undefined, refused: [] };
	const account = { uid: Number(uid), gid: Number(gid), home };
	const isStrict = settings.get("strictmodes") !== "no";
	const patterns = settings.get("authorizedkeysfile")?.split(" ") ?? [];
	const refused: string[] = [];
	for (const pattern of patterns) {
		const expanded = pattern
			.replaceAll("%h", home)
			.replaceAll("%u", user)
			.replaceAll("%%", "%");
		const file = path.resolve(home, expanded);
		const lines = plainKeys(await readAs(account, file, isStrict));
		if (lines.length === 0) continue;
		const keys = readListing(await listingOf(lines));
		if (keys.some((key) => isAccepted(key, settings)))
			return { file, refused: [] };
		refused.push(
			...keys.map(({ kind, bits }) => `${kind} of ${bits} bits in ${file}`),
		);
	}
	return { file: undefined, refused: [...new Set(refused)].slice(0, 5) };
}

/** Has ssh-keygen say what some lines hold; of what only looks like a key it says nothing. */
async function listingOf(lines: readonly string[]): Promise<string> {
	const command = ["ssh-keygen", "-l", "-f", "-"];
	const input = `${lines.join("\n")}\n`;
	const { code, stdout } = await runProgram(command, { input });
	return code === 0 ? stdout : "";
}

/** A key as ssh-keygen names it. */
export interface ListedKey {
	/** `RSA`, `ED25519-SK`, `RSA-CERT` (sshkey.c, keyimpls). */
	readonly kind: string;
	readonly bits: number;
}

/** Reads what `ssh-keygen -l` prints: `256 SHA256:… me@laptop (ED25519)`. */
export function readListing(output: string): ListedKey[] {
	return output.split("\n").flatMap((line) => {
		const [, bits, kind] = /^(\d+) .*\(([\w-]+)\)$/.exec(line) ?? [];
		return bits === undefined || kind === undefined
			? []
			: { kind, bits: Number(bits) };
	});
}

/**
 * The signatures that a key makes, by the names of PubkeyAcceptedAlgorithms.
 * Those of RSA with SHA-1 are not among them: clients have given them up. Nor is a
 * certificate, whose line in an authorized_keys lets nobody in (auth2-pubkeyfile.c).
 */
function signaturesOf({ kind, bits }: ListedKey): readonly string[] {
	switch (kind) {
		case "DSA":
			return ["ssh-dss"];
		case "RSA":
			return ["rsa-sha2-512", "rsa-sha2-256"];
		case "ECDSA":
			return [`ecdsa-sha2-nistp${bits}`];
		case "ED25519":
			return ["ssh-ed25519"];
		case "ECDSA-SK":
			return ["sk-ecdsa-sha2-nistp256@openssh.com"];
		case "ED25519-SK":
			return ["sk-ssh-ed25519@openssh.com"];
		default:
			return [];
	}
}

/** Whether sshd takes keys of this kind and size; one that does not say which it takes, takes none. */
export function isAccepted(
	key: ListedKey,
	settings: ReadonlyMap<string, string>,
): boolean {
	const accepted =
		settings.get("pubkeyacceptedalgorithms") ??
		// OpenSSH 8.4 and before.
		settings.get("pubkeyacceptedkeytypes") ??
		"";
	const names = accepted.split(",");
	if (!signaturesOf(key).some((name) => names.includes(name))) return false;
	if (key.kind !== "RSA") return true;
	// Before OpenSSH 9.1 there was no such setting, and ssh-keygen lists none that are shorter.
	return key.bits >= Number(settings.get("requiredrsasize") ?? 1024);
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

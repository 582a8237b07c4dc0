import { readFile } from "node:fs/promises";
import path from "node:path";
import { hasProgram, outputOf, runProgram } from "./program.ts";
import { takeSnapshot } from "./snapshot.ts";
import { loginUser } from "./ssh.ts";
import { absent, done, type Proof, type Step, todo, unsafe } from "./step.ts";
import { lookUpUnit } from "./units.ts";

const mainFile = "/etc/ssh/sshd_config";
/** Of several settings the first counts, and these files are read in their order, before the rest. */
const dropIn = "/etc/ssh/sshd_config.d/00-llamagate.conf";

/** sshd's settings in force, lower-case names; those of a connection of this user's from elsewhere. */
async function settingsFor(
	user: string,
): Promise<ReadonlyMap<string, string> | undefined> {
	const output = await outputOf(
		...["sshd", "-T", "-C"],
		`user=${user},host=elsewhere.example,addr=203.0.113.1,laddr=192.0.2.1,lport=22`,
	);
	return output === undefined ? undefined : parseSettings(output);
}

/** Reads what `sshd -T` prints. */
export function parseSettings(output: string): ReadonlyMap<string, string> {
	return new Map(
		output.split("\n").map((line) => {
			const space = line.indexOf(" ");
			return [line.slice(0, space), line.slice(space + 1)] as const;
		}),
	);
}

/** Settings that keep passwords out; those that are met already are left alone. */
export function shortcomings(settings: ReadonlyMap<string, string>): string[] {
	const lines: string[] = [];
	if (settings.get("passwordauthentication") !== "no")
		lines.push("PasswordAuthentication no");
	if (settings.get("kbdinteractiveauthentication") !== "no")
		lines.push("KbdInteractiveAuthentication no");
	if (settings.get("pubkeyauthentication") !== "yes")
		lines.push("PubkeyAuthentication yes");
	if (settings.get("permitrootlogin") === "yes")
		lines.push("PermitRootLogin prohibit-password");
	return lines;
}

const wanted = `# Written by "llamagate setup": who logs in here does so by a key.
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
`;

/** SSH by key only, and only where a key is there to log in with. */
export function sshd(): Step {
	const user = loginUser();
	return {
		id: "sshd",
		title: "SSH by key only",
		why: "A password can be guessed from anywhere that reaches the SSH port; a key cannot.",
		async inspect() {
			if (!(await hasProgram("sshd")))
				return absent("there is no sshd on this host");
			const settings = await settingsFor(user);
			if (settings === undefined)
				return unsafe(
					`sshd does not accept its own configuration; see: sshd -T\n${(await runProgram(["sshd", "-t"])).stderr.trim()}`,
				);
			const missing = shortcomings(settings);
			if (missing.length === 0)
				return done(`passwords are off and keys are on for ${user}`);
			const key = await installedKey(user, settings);
			if (key === undefined)
				return unsafe(
					`${user} has no key here, so turning passwords off would lock ${user} out; from your own machine run ssh-copy-id ${user}@THIS-HOST, log in with it, and run this again`,
				);
			if (!(await readsDropIns()))
				return unsafe(
					`${mainFile} does not begin with "Include /etc/ssh/sshd_config.d/*.conf"; add that as its first line`,
				);
			const rootByKey =
				settings.get("permitrootlogin") === "yes"
					? "PermitRootLogin prohibit-password\n"
					: "";
			const reload = ["systemctl", "reload", await serviceName()];
			return todo(
				`${user} may still log in without a key (${missing.join(", ")} is missing); the key in ${key} stays good`,
				[
					{
						kind: "file",
						path: dropIn,
						content: wanted + rootByKey,
						user: "root",
						group: "root",
						mode: 0o644,
						undo: [reload],
					},
					{ kind: "command", command: ["sshd", "-t"] },
					{ kind: "command", command: reload },
				],
				[
					"Keep this session open, and log in from a second terminal before you close it.",
				],
			);
		},
		async prove() {
			const settings = await settingsFor(user);
			const missing =
				settings === undefined ? ["sshd -T"] : shortcomings(settings);
			const proofs: Proof[] = [
				{
					ok: missing.length === 0,
					says:
						missing.length === 0
							? `sshd -T: for ${user} passwords are off, keys are on`
							: `sshd -T: for ${user} there is still missing ${missing.join(", ")}`,
					advice: `look for a Match block or an earlier file that says otherwise: grep -r . ${mainFile}*`,
				},
			];
			return proofs;
		},
	};
}

async function serviceName(): Promise<string> {
	// Debian's is ssh.service; elsewhere it is sshd.service.
	return (await lookUpUnit("ssh.service"))?.exists
		? "ssh.service"
		: "sshd.service";
}

/** Whether the drop-in would be read before any other setting. */
async function readsDropIns(): Promise<boolean> {
	const text = await readFile(mainFile, "utf8");
	const first = text
		.split("\n")
		.map((line) => line.trim())
		.find((line) => line !== "" && !line.startsWith("#"));
	return /^include\s+(\/etc\/ssh\/)?sshd_config\.d\/\*\.conf\b/i.test(
		first ?? "",
	);
}

/** The file of a user's that holds a key that sshd would take. */
async function installedKey(
	user: string,
	settings: ReadonlyMap<string, string>,
): Promise<string | undefined> {
	const home = (await outputOf("getent", "passwd", user))?.split(":")[5];
	if (home === undefined) return undefined;
	const patterns = settings.get("authorizedkeysfile")?.split(" ") ?? [];
	for (const pattern of patterns) {
		const expanded = pattern
			.replaceAll("%h", home)
			.replaceAll("%u", user)
			.replaceAll("%%", "%");
		const file = path.resolve(home, expanded);
		const { snapshot } = await takeSnapshot(file);
		// sshd's StrictModes refuses one that others may write to.
		if (snapshot.kind !== "file" || (snapshot.mode & 0o022) !== 0) continue;
		if ((await outputOf("ssh-keygen", "-l", "-f", file)) !== undefined)
			return file;
	}
	return undefined;
}

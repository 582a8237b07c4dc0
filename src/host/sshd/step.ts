import { readFile } from "node:fs/promises";
import path from "node:path";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	absent,
	done,
	type Proof,
	rootDirectory,
	rootFile,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import { hasProgram, runProgram } from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import { installedKeys } from "./authorizedKeys.ts";
import { askSshd, loginUser } from "./inspect.ts";

const mainFile = "/etc/ssh/sshd_config";
/** Of several settings the first counts, and these files are read in their order, before the rest. */
const dropIn = "/etc/ssh/sshd_config.d/00-llamagate.conf";

/** From everywhere, the LAN and the tailnet: a Match block may make an exception for any of them. */
const origins = ["203.0.113.1", "192.168.1.2", "10.1.1.2", "100.101.102.105"];

/** sshd's settings in force, lower-case names; those of a connection of this user's. */
async function settingsFor(
	user: string,
	addr?: string,
): Promise<ReadonlyMap<string, string> | undefined> {
	const { code, stdout } = await askSshd(
		addr === undefined ? { user } : { user, addr },
	);
	return code === 0 ? parseSettings(stdout) : undefined;
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

/** Why sshd does not say its settings, by what it prints in their place. */
export function whySilent(stderr: string): string {
	const said = stderr.trim();
	// systemd takes it away with a service that is stopped, and has not made it before the first login by a socket.
	const folder = /^Missing privilege separation directory: (\/\S+)$/m.exec(
		said,
	)?.[1];
	return folder === undefined
		? `sshd does not accept its own configuration; see: sshd -T\n${said}`
		: `sshd says nothing of its settings without the folder ${folder}, which is there while its service runs; run: sudo mkdir -m 0755 ${folder}, and then this again`;
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

/** Whether a key alone lets in, by what `sshd -T` prints for AuthenticationMethods: `any`, or lists of what is asked for together. */
export function isKeyEnough(methods: string): boolean {
	return methods.split(" ").some((list) => ["any", "publickey"].includes(list));
}

const wanted = `# Written by "llamagate setup": who logs in here does so by a key.
PasswordAuthentication no
KbdInteractiveAuthentication no
PubkeyAuthentication yes
`;

/** SSH by key only, and only where a key is there to log in with. */
export function sshd(): Step {
	return {
		id: "sshd",
		title: "SSH by key only",
		why: "A password can be guessed from anywhere that reaches the SSH port; a key cannot.",
		async inspect() {
			if (!(await hasProgram("sshd")))
				return absent("found no sshd on this host");
			const user = await loginUser();
			const settings = await settingsFor(user);
			if (settings === undefined) {
				const { stderr } = await runProgram(["sshd", "-t"]);
				return unsafe(whySilent(stderr));
			}
			const missing = shortcomings(settings);
			if (missing.length === 0)
				return done(`passwords are off and keys are on for ${user}`);
			const methods = settings.get("authenticationmethods") ?? "any";
			if (!isKeyEnough(methods))
				return methods
					.split(" ")
					.every((list) => list.split(",").includes("publickey"))
					? done(`${user} logs in by a key and more (${methods})`)
					: unsafe(
							`sshd asks ${user} for ${methods}; without passwords nothing of that would be left, so AuthenticationMethods has to allow publickey alone first`,
						);
			const { file: key, refused } = await installedKeys(user, settings);
			if (key === undefined)
				return unsafe(
					`${user} has no key here that lets in from anywhere to a shell${refused.length === 0 ? "" : ` (sshd refuses ${refused.join(", ")})`}, so turning passwords off would lock ${user} out; from your own machine run ${refused.length === 0 ? "" : "ssh-keygen -t ed25519, then "}ssh-copy-id ${user}@THIS-HOST, log in with it, and run this again`,
				);
			if (!(await readsDropIns()))
				return unsafe(
					`${mainFile} does not begin with "Include /etc/ssh/sshd_config.d/*.conf"; add that as its first line`,
				);
			const line = "PermitRootLogin prohibit-password\n";
			const { content: before } = await takeSnapshot(dropIn);
			// Where that is our own doing, it is to stay.
			const rootByKey =
				settings.get("permitrootlogin") === "yes" || before?.includes(line)
					? line
					: "";
			// One that is stopped, or that a socket starts, reads them when it starts.
			const reload = [
				"systemctl",
				"try-reload-or-restart",
				await serviceName(),
			];
			const folder = path.dirname(dropIn);
			const { snapshot } = await takeSnapshot(folder);
			return todo(
				`${user} may still log in without a key (${missing.join(", ")} is missing); the key in ${key} stays good`,
				[
					...(snapshot.kind === "nothing" ? [rootDirectory(folder)] : []),
					rootFile(dropIn, wanted + rootByKey, [reload]),
					{ kind: "command", command: ["sshd", "-t"] },
					{ kind: "command", command: reload },
				],
				[
					"Keep this session open, and log in from a second terminal before you close it.",
				],
			);
		},
		async prove() {
			const user = await loginUser();
			const settings = await settingsFor(user);
			const methods = settings?.get("authenticationmethods") ?? "any";
			const missing = settings === undefined ? ["sshd -T"] : [];
			for (const origin of isKeyEnough(methods) ? origins : []) {
				const there = await settingsFor(user, origin);
				missing.push(
					...shortcomings(there ?? new Map()).map(
						(line) => `${line} (from ${origin})`,
					),
				);
			}
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

/** sshd's service, by the name that this distribution gives it. */
export async function serviceName(): Promise<string> {
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

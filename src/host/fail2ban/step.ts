import { unknown } from "../../doctor/check.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	type Action,
	absent,
	done,
	type Proof,
	rootFile,
	type Step,
	todo,
} from "../../setup/step.ts";
import { type Installation, readPackaged } from "../../system/installation.ts";
import { hasProgram, outputOf, runProgram } from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { examineAction } from "./checks.ts";

const files = [
	["fail2ban/filter.d/llamagate.conf", "/etc/fail2ban/filter.d/llamagate.conf"],
	["fail2ban/jail.d/llamagate.conf", "/etc/fail2ban/jail.d/llamagate.conf"],
] as const;
/** Debian's jail for sshd reads a file that a host with journald alone does not have, and then nothing starts. */
const sshdJail = "/etc/fail2ban/jail.d/llamagate-sshd.conf";
const sshdJailText = `# Written by "llamagate setup": sshd logs to the journal here, and to no file.
[sshd]
backend = systemd
`;
/** From a range for documentation (RFC 5737). */
const triedAddress = "192.0.2.77";

/** Bans for those who try keys, which hold off tailnet peers too. */
export function fail2ban(installation: Installation): Step {
	return {
		id: "fail2ban",
		title: "Bans for those who guess",
		why: "The gate locks an address out after ten wrong keys; fail2ban shuts its packets out altogether.",
		async inspect() {
			if (!(await hasProgram("fail2ban-client")))
				return absent(
					"fail2ban is not installed; it is a second line behind the gate's own lockout (sudo apt install fail2ban nftables python3-systemd)",
				);
			if (!(await hasProgram("nft")))
				return absent(
					"fail2ban is there, and nft is not: bans by iptables do not hold off tailnet peers (sudo apt install nftables)",
				);
			if (
				(await runProgram(["python3", "-c", "import systemd.journal"])).code !==
				0
			)
				return absent(
					"fail2ban cannot read the journal here (sudo apt install python3-systemd)",
				);
			const actions: Action[] = [];
			const unit = await lookUpUnit("fail2ban.service");
			const apply = [["systemctl", "try-restart", "fail2ban.service"]];
			const write = async (path: string, content: string) => {
				const { content: before } = await takeSnapshot(path);
				if (before?.toString() === content) return;
				// The first is the last to be taken back.
				const isFirst = actions.length === 0 && unit?.isActive;
				actions.push(rootFile(path, content, isFirst ? apply : undefined));
			};
			for (const [packaged, path] of files)
				await write(path, await readPackaged(installation, packaged));
			if (await readsMissingFile()) await write(sshdJail, sshdJailText);
			if (actions.length > 0)
				actions.push(
					{ kind: "command", command: ["fail2ban-client", "--test"] },
					...(unit?.isActive
						? [{ kind: "command" as const, command: apply[0] ?? [] }]
						: []),
				);
			if (!unit?.isEnabled)
				actions.push({
					kind: "command",
					command: ["systemctl", "enable", "fail2ban.service"],
					undo: [["systemctl", "disable", "fail2ban.service"]],
				});
			if (!unit?.isActive)
				actions.push({
					kind: "command",
					command: ["systemctl", "restart", "fail2ban.service"],
					undo: [["systemctl", "stop", "fail2ban.service"]],
				});
			if (actions.length === 0)
				return done("fail2ban runs, with a jail for the gate");
			return todo("fail2ban does not watch the gate yet", actions);
		},
		async prove() {
			const watches = await becomesTrue(
				async () =>
					(await outputOf("fail2ban-client", "status", "llamagate")) !==
					undefined,
			);
			if (!watches)
				return [
					{
						ok: false,
						says: "fail2ban has no jail for the gate",
						advice: "see: fail2ban-client status; journalctl -u fail2ban -n 50",
					},
				];
			const ban = [
				"fail2ban-client",
				"set",
				"llamagate",
				"banip",
				triedAddress,
			];
			const unban = [
				"fail2ban-client",
				"set",
				"llamagate",
				"unbanip",
				triedAddress,
			];
			await runProgram(ban);
			const banned = await becomesTrue(async () =>
				((await outputOf("nft", "list", "ruleset")) ?? "").includes(
					triedAddress,
				),
			);
			await runProgram(unban);
			return [
				await proveAction(),
				{
					ok: banned,
					says: banned
						? `a ban of ${triedAddress} reached the kernel, and was lifted again`
						: `a ban of ${triedAddress} did not reach the kernel`,
					advice: "see: journalctl -u fail2ban -n 50; nft list ruleset",
				},
			];
		},
	};
}

/** That bans close the gate's port; what fail2ban does not tell is no fault. */
async function proveAction(): Promise<Proof> {
	const { state, evidence, fix } = await examineAction().catch((error: Error) =>
		unknown(error.message),
	);
	return {
		ok: state !== "finding",
		says: evidence.join("; "),
		...(fix === undefined ? {} : { advice: fix }),
	};
}

/** Whether the jail for sshd, which Debian turns on, is told to read a log file that is not there. */
async function readsMissingFile(): Promise<boolean> {
	const { stdout, stderr } = await runProgram(["fail2ban-client", "-d"]);
	return /Have not found any log file for sshd jail/.test(stdout + stderr);
}

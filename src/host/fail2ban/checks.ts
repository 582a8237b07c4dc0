import { isIP } from "node:net";
import { networkInterfaces } from "node:os";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	unknown,
} from "../../doctor/check.ts";
import { readPackaged } from "../../system/installation.ts";
import {
	hasProgram,
	missingProgram,
	outputOf,
	runProgram,
} from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import { becomesTrue } from "../../system/waiting.ts";
import { gatePlace } from "../gate/step.ts";

const jail = "llamagate";
const restart = "sudo systemctl restart fail2ban";
const both = {
	group: "fail2ban",
	layer: "host",
	needsRoot: true,
} as const;
const bySetup = {
	step: "fail2ban",
	fix: "sudo llamagate setup --only fail2ban",
} as const;

export const fail2banExaminations: readonly Examination[] = [
	{
		...both,
		...bySetup,
		id: "fail2ban.running",
		title: "fail2ban runs",
		severity: "warn",
		why: "The gate locks guessers out by itself; fail2ban shuts their packets out, and those of anyone who guesses SSH passwords.",
		async examine() {
			if (!(await isInstalled())) return notInstalled();
			const { code, stdout, stderr } = await client("status");
			if (code === 0) return ok("fail2ban answers");
			return finding([(stderr || stdout).trim().replace(/^.*ERROR\s+/, "")], {
				fix:
					(await lookUpUnit("fail2ban.service")) === undefined
						? "sudo fail2ban-client start"
						: "sudo systemctl enable --now fail2ban",
			});
		},
	},
	{
		...both,
		...bySetup,
		id: "fail2ban.jail",
		title: "fail2ban has a jail for the gate",
		severity: "warn",
		why: "Only a jail that is active counts wrong keys.",
		examine: () =>
			whenRunning(async () => {
				const jails = parseJails(await told("status"));
				return jails.includes(jail)
					? ok(`its jails are ${jails.join(", ")}`)
					: finding([
							`its jails are ${jails.join(", ") || "none"}, and ${jail} is not among them`,
						]);
			}),
	},
	{
		...both,
		...bySetup,
		id: "fail2ban.action",
		title:
			"Bans for wrong keys reach the kernel by nftables, on the gate's port",
		severity: "warn",
		why: "Bans by iptables or UFW stand behind the rule by which tailscaled lets the tailnet in, and hold off none of it.",
		examine: () => whenJailed(examineAction),
	},
	{
		...both,
		...bySetup,
		id: "fail2ban.filter",
		title: "fail2ban looks for wrong keys by the filter that llamagate ships",
		severity: "warn",
		why: "Another one finds nothing, or can be made to ban others by what a client sends.",
		examine: ({ installation }) =>
			whenJailed(async () =>
				judgeFilter(
					await readPackaged(installation, "fail2ban/filter.d/llamagate.conf"),
					parseList(await told("get", jail, "failregex")),
					parseList(await told("get", jail, "ignoreregex")),
				),
			),
	},
	{
		...both,
		...bySetup,
		id: "fail2ban.journal",
		title: "fail2ban sees the gate's log",
		severity: "warn",
		why: "A jail that watches another place is active, and never bans.",
		examine: () =>
			whenJailed(async () => {
				const ignored = await told("get", jail, "ignoreip");
				const logged = /No IP address/.test(ignored)
					? await wrongKeysLogged()
					: 0;
				let outcome = unknown();
				// It takes a moment to count what was logged just now.
				await becomesTrue(async () => {
					outcome = judgeJournal(await told("status", jail), logged);
					return outcome.state !== "finding";
				}, 5_000);
				return outcome;
			}),
	},
	{
		...both,
		id: "fail2ban.sshd",
		title: "fail2ban has a jail for sshd",
		severity: "info",
		why: "It keeps guessers from filling the log; with passwords off they find nothing anyway.",
		fix: "printf '[sshd]\\nenabled = true\\nbackend = systemd\\n' | sudo tee /etc/fail2ban/jail.d/sshd.local && sudo systemctl restart fail2ban",
		examine: () =>
			whenRunning(async () => {
				if (!(await hasProgram("sshd")))
					return absent("found no sshd on this host");
				return parseJails(await told("status")).includes("sshd")
					? ok("its jail sshd is active")
					: finding(["none of its jails is for sshd"]);
			}),
	},
	{
		...both,
		id: "fail2ban.banned",
		title: "No address is banned now",
		severity: "info",
		why: "A ban that hits a device of yours looks like a gate that is down: connection refused.",
		fix: "sudo fail2ban-client set llamagate unbanip ADDRESS",
		examine: () =>
			whenRunning(async () => {
				const jails = parseJails(await told("status"));
				const banned = await Promise.all(
					jails.map(async (name) => ({
						name,
						addresses: words(await told("get", name, "banip")),
					})),
				);
				return judgeBanned(banned);
			}),
	},
];

const isInstalled = () => hasProgram("fail2ban-client");
const notInstalled = () => absent("fail2ban is not installed");

const client = (...command: string[]) =>
	runProgram(["fail2ban-client", ...command]);

/** What fail2ban answers. @throws if it does not */
async function told(...command: string[]): Promise<string> {
	const { code, stdout, stderr } = await client(...command);
	if (code !== 0)
		throw new Error(
			`fail2ban-client ${command.join(" ")}: ${(stderr || stdout).trim()}`,
		);
	return stdout;
}

async function whenRunning(look: () => Promise<Outcome>): Promise<Outcome> {
	if (!(await isInstalled())) return notInstalled();
	if ((await client("status")).code !== 0)
		return unknown("fail2ban does not answer; see fail2ban.running");
	return look();
}

function whenJailed(look: () => Promise<Outcome>): Promise<Outcome> {
	return whenRunning(async () =>
		parseJails(await told("status")).includes(jail)
			? look()
			: unknown("the jail does not exist; see fail2ban.jail"),
	);
}

/** How many wrong keys of others than this host the gate has logged since fail2ban began to count; `undefined` if that is not to be seen. */
async function wrongKeysLogged(): Promise<number | undefined> {
	const shown = await outputOf(
		"systemctl",
		"show",
		"fail2ban.service",
		"--timestamp=unix",
		"--property=ActiveEnterTimestamp",
	);
	const since = /=(@\d+)/.exec(shown ?? "")?.[1];
	if (since === undefined) return undefined;
	const { code, stdout, stderr } = await runProgram([
		"journalctl",
		"--unit=llamagate.service",
		"--output=cat",
		"--quiet",
		`--since=${since}`,
		'--grep=^{"event":"auth_failed","ip":"',
	]);
	// It ends with 1 where it finds nothing.
	if (code !== 0 && (stdout + stderr).trim() !== "") return undefined;
	const own = Object.values(networkInterfaces())
		.flatMap((list) => list ?? [])
		.map(({ address }) => address);
	return stdout
		.split("\n")
		.map((line) => /"ip":"([^"]*)"/.exec(line)?.[1] ?? "")
		.filter((ip) => isIP(ip) !== 0 && !own.includes(ip)).length;
}

/** Whether a ban that fail2ban makes holds off what it is for. */
export async function examineAction(): Promise<Outcome> {
	const names = parseActions(await told("get", jail, "actions"));
	const actions = await Promise.all(
		names.map(async (name) => ({
			name,
			ban: await told("get", jail, "action", name, "actionban"),
			port: await told("get", jail, "action", name, "port"),
		})),
	);
	const { port } = await gatePlace();
	const banned = words(await told("get", jail, "banip"));
	const rules = await outputOf("nft", "list", "ruleset");
	if (rules === undefined && !(await hasProgram("nft")))
		return unknown(missingProgram("nft"));
	return judgeAction(actions, String(port), banned, rules);
}

function words(text: string): string[] {
	return text.split(/\s+/).filter(Boolean);
}

/** Reads `fail2ban-client status`. */
export function parseJails(status: string): string[] {
	return words((/Jail list:(.*)/.exec(status)?.[1] ?? "").replaceAll(",", " "));
}

/** Reads `fail2ban-client get JAIL actions`: a line of words, and then the names. */
export function parseActions(output: string): string[] {
	return words(output.split("\n").slice(1).join(" ").replaceAll(",", " "));
}

/** Reads what `fail2ban-client get JAIL failregex` lists, a `[0]: ` ahead of each. */
export function parseList(output: string): string[] {
	return output.split("\n").flatMap((line) => {
		const [, item] = /^[|`]- \[\d+\]: (.*)$/.exec(line) ?? [];
		return item === undefined ? [] : [item];
	});
}

/** @param rules of the kernel; `undefined` where nft does not show them */
export function judgeAction(
	actions: readonly {
		readonly name: string;
		readonly ban: string;
		readonly port: string;
	}[],
	gatePort: string,
	banned: readonly string[],
	rules: string | undefined,
): Outcome {
	const byNft = actions.filter(({ ban }) => /^\s*nft /m.test(ban));
	const [action] = byNft;
	if (action === undefined)
		return finding([
			`wrong keys are answered by ${actions.map(({ name }) => name).join(", ") || "no action"}, which holds off no tailnet peer`,
		]);
	const ports = action.port.trim().split(",");
	const isAllPorts = action.name.includes("allports");
	if (!isAllPorts && !ports.includes(gatePort))
		return finding(
			[`bans close port ${action.port.trim()}, and the gate is on ${gatePort}`],
			{
				fix: `put "port = ${gatePort}" below [${jail}] in /etc/fail2ban/jail.d/llamagate.local, then: ${restart}`,
			},
		);
	if (banned.length === 0)
		return ok(`${action.name} on port ${action.port.trim()}`);
	if (rules === undefined)
		return unknown("nft does not show what the kernel has of the bans");
	const missing = banned.filter((address) => !hasAddress(rules, address));
	return missing.length === 0
		? ok(`${action.name}; the kernel has its ${banned.length} ban(s)`)
		: finding(
				[`${missing.join(", ")}: banned, and not in the kernel's rules`],
				{ fix: restart },
			);
}

function hasAddress(rules: string, address: string): boolean {
	return rules.split(/[\s,{}]+/).includes(address);
}

/**
 * @param file the filter as it is shipped
 * @param inForce the expressions that fail2ban counts by
 */
export function judgeFilter(
	file: string,
	inForce: readonly string[],
	ignoring: readonly string[],
): Outcome {
	const shipped = (name: string) =>
		new RegExp(`^${name} = (.*)$`, "m").exec(file)?.[1] ?? "";
	const [before = "", after = ""] = shipped("failregex").split("<ADDR>");
	const [regex] = inForce;
	// fail2ban puts an expression of its own in the address's place.
	const isShipped =
		inForce.length === 1 &&
		regex?.startsWith(before) &&
		regex.endsWith(after) &&
		/^\\\[\?\(\?:.*\(\?P<ip4>.*\)\\\]\?$/.test(
			regex.slice(before.length, regex.length - after.length),
		);
	if (!isShipped)
		return finding([
			`what it looks for is not what is shipped: ${inForce.join(" and ") || "nothing"}`,
		]);
	return ignoring.join("\n") === shipped("ignoreregex")
		? ok("its expressions in force are those that are shipped")
		: finding([
				`what it passes over is not what is shipped: ${ignoring.join(" and ") || "nothing"}`,
			]);
}

/**
 * @param status as `fail2ban-client status JAIL` prints it
 * @param logged how many wrong keys the gate has logged since fail2ban's start
 */
export function judgeJournal(
	status: string,
	logged: number | undefined,
): Outcome {
	const matches = /Journal matches:\s*(.*)/.exec(status)?.[1]?.trim();
	if (matches === undefined)
		return finding([
			`it reads ${/File list:\s*(.*)/.exec(status)?.[1]?.trim() || "no file"}, and the gate logs to the journal`,
		]);
	if (matches !== "_SYSTEMD_UNIT=llamagate.service")
		return finding([
			`it reads the journal's lines of ${matches || "everybody"}, and the gate's have _SYSTEMD_UNIT=llamagate.service`,
		]);
	const counted = Number(/Total failed:\s*(\d+)/.exec(status)?.[1]);
	if (logged === undefined || Number.isNaN(counted))
		return unknown(
			"how many wrong keys were logged and how many counted is not to be seen",
		);
	return logged > 0 && counted === 0
		? finding(
				[
					`the gate has logged ${logged} wrong key(s) since fail2ban was started, and it has counted none`,
				],
				{ fix: restart },
			)
		: ok(
				`it reads the lines of llamagate.service; of ${logged} wrong key(s) logged it has counted ${counted}`,
			);
}

export function judgeBanned(
	jails: readonly {
		readonly name: string;
		readonly addresses: readonly string[];
	}[],
): Outcome {
	const banned = jails.flatMap(({ name, addresses }) =>
		addresses.map((address) => ({ name, address })),
	);
	if (banned.length === 0) return ok("fail2ban bans nobody now");
	return finding(
		banned.map(({ name, address }) => `${address} is banned by jail ${name}`),
		{
			fix: banned
				.map(
					({ name, address }) =>
						`sudo fail2ban-client set ${name} unbanip ${address}`,
				)
				.join("\n"),
		},
	);
}

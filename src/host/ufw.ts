import { hasProgram, outputOf, runProgram } from "./program.ts";
import { takeSnapshot } from "./snapshot.ts";
import { currentSshConnection, type SshConnection, sshPorts } from "./ssh.ts";
import {
	absent,
	type CommandAction,
	done,
	type Proof,
	type Step,
	todo,
	unsafe,
} from "./step.ts";
import { lookUpUnit } from "./units.ts";

/** Where UFW keeps what its commands change. */
const ruleFiles = ["/etc/ufw/user.rules", "/etc/ufw/user6.rules"];
const switchFile = "/etc/ufw/ufw.conf";
const defaultsFile = "/etc/default/ufw";

/** Ports that nobody but this host, or the tailnet by the gate and Serve, is to reach. */
const closedPorts = [11434, 3000, 8080];
/** The gate, and Open WebUI over HTTPS. */
const tailnetPorts = [11434, 443];

/** One rule, as `ufw show added` writes it, without `ufw` and its comment: `deny 11434`. */
export type Rule = string;

/** The rules that setup makes, in their order: what is allowed comes before what is denied. */
export function wantedRules(ports: readonly number[]): Rule[] {
	return [
		...ports.map((port) => `allow ${port}/tcp`),
		...tailnetPorts.map(
			(port) => `allow in on tailscale0 to any port ${port} proto tcp`,
		),
		"allow 41641/udp",
		...closedPorts.map((port) => `deny ${port}`),
	];
}

/** Reads what `ufw show added` prints. */
export function parseAddedRules(output: string): Rule[] {
	return output
		.split("\n")
		.filter((line) => line.startsWith("ufw "))
		.map((line) => line.slice(4).replace(/ comment '.*'$/, ""));
}

/** The ports that a rule speaks of, as UFW writes them (`80`, `80,443`, `6000:6007`); `undefined` if it speaks of all. */
function portsOf(rule: Rule): string | undefined {
	const [, to] = / port ([\d,:]+)$/.exec(rule.replace(/ proto \w+/, "")) ?? [];
	const [, alone] = /^\w+(?: in)? ([\d,:]+)(?:\/\w+)?$/.exec(rule) ?? [];
	if (/^\w+( in)? (OpenSSH|ssh)$/i.test(rule)) return "22";
	// Another application's profile: what it opens is not ours to look at.
	if (/^\w+( in)? [A-Za-z]/.test(rule) && !/ (from|on|to|proto) /.test(rule))
		return "";
	return to ?? alone;
}

function covers(ports: string, port: number): boolean {
	return ports.split(",").some((part) => {
		const [from = "", to = from] = part.split(":");
		return part !== "" && port >= Number(from) && port <= Number(to);
	});
}

/** Whether a rule lets others to one of the ports that are to be closed, or takes a source address for a tailnet's. */
function isInTheWay(rule: Rule, wanted: readonly Rule[]): boolean {
	if (!/^(allow|limit)\b/.test(rule) || wanted.includes(rule)) return false;
	const ports = portsOf(rule);
	return ports === undefined
		? / from 100\.64\.0\.0\/10\b/.test(rule) || / on tailscale0$/.test(rule)
		: closedPorts.some((port) => covers(ports, port));
}

/** Whether a rule speaks of one port for everybody: `allow 22/tcp`, `limit OpenSSH`. */
function isForEverybody(rule: Rule, port: number): boolean {
	return portsOf(rule) === String(port) && !/ (from|on) /.test(rule);
}

/** Whether a rule may shut a person out of a port. */
function mayShutOut(rule: Rule, port: number): boolean {
	const ports = portsOf(rule);
	return (
		/^(deny|reject)\b/.test(rule) &&
		(ports === undefined || covers(ports, port))
	);
}

/** The changes that lead from the rules that are there to those that are wanted. */
export interface RulePlan {
	/** Rules of ours that stand behind one that undoes them; taken out before all else. */
	readonly misplaced: readonly Rule[];
	/** To be put at the very front, one after the other. */
	readonly prepend: readonly Rule[];
	/** To be added at the end. */
	readonly append: readonly Rule[];
	/** Taken out last, when those that let the person in are there. */
	readonly remove: readonly Rule[];
}

/**
 * Compares rules; UFW takes the first that fits.
 *
 * @param added the rules that are there, in their order
 * @param ports of sshd
 * @param connection the one that the person sits on
 */
export function planRules(
	added: readonly Rule[],
	ports: readonly number[],
	connection?: SshConnection,
): RulePlan {
	const wanted = wantedRules(ports);
	const remove = added.filter((rule) => isInTheWay(rule, wanted));
	const denials = closedPorts.map((port) => `deny ${port}`);
	const firstDenial = added.findIndex((rule) => denials.includes(rule));
	const misplaced = added.filter(
		(rule, index) =>
			firstDenial >= 0 &&
			index > firstDenial &&
			rule.startsWith("allow in on tailscale0 ") &&
			wanted.includes(rule),
	);
	const kept = added.filter(
		(rule) => !remove.includes(rule) && !misplaced.includes(rule),
	);
	const prepend: Rule[] = [];
	const append: Rule[] = [];
	for (const rule of wanted) {
		if (kept.includes(rule)) continue;
		const port = ports.find((one) => rule === `allow ${one}/tcp`);
		if (port !== undefined) {
			// One of the person's own is better than ours: it may be narrower, or a limit.
			const own = kept.find((other) => isForEverybody(other, port));
			if (own !== undefined && /^(allow|limit)/.test(own)) continue;
			if (kept.some((other) => mayShutOut(other, port))) prepend.push(rule);
			else append.push(rule);
		} else if (rule.startsWith("allow in on") && firstDenial >= 0)
			prepend.push(rule);
		else append.push(rule);
	}
	// The address that the person sits at, ahead of everything that could shut it out.
	if (
		connection !== undefined &&
		kept.some((rule) => mayShutOut(rule, connection.serverPort))
	) {
		const rule = `allow from ${connection.clientAddress} to any port ${connection.serverPort} proto tcp`;
		if (!kept.includes(rule)) prepend.push(rule);
	}
	return { misplaced, prepend, append, remove };
}

const tailnetNote =
	"UFW keeps the internet and the LAN out. It does not filter the tailnet: tailscaled puts a rule of its own ahead of UFW's that lets every device of the tailnet through to every port. What holds those off is that Ollama and Open WebUI are bound to loopback, that the gate asks for a key, and the tailnet's own policy (llamagate policy print).";

/** A firewall that is shut but for SSH and Tailscale. */
export function ufw(): Step {
	return {
		id: "ufw",
		title: "A firewall, shut but for SSH and Tailscale",
		why: "Whatever else listens on this host, the internet and the LAN do not reach it.",
		async inspect() {
			if (!(await hasProgram("ufw")))
				return absent(
					"ufw is not installed; install it (sudo apt install ufw) and run this again",
				);
			const added = parseAddedRules(
				(await outputOf("ufw", "show", "added")) ?? "",
			);
			const ports = await sshPorts();
			const connection = await currentSshConnection();
			if (connection !== undefined && !ports.includes(connection.serverPort))
				return unsafe(
					`you are logged in over port ${connection.serverPort}, and sshd does not say that it has it open (${ports.join(", ") || "none"}); allow it first: sudo ufw allow ${connection.serverPort}/tcp`,
				);
			const { misplaced, prepend, append, remove } = planRules(
				added,
				ports,
				connection,
			);
			const state = await firewallState();
			const unit = await lookUpUnit("ufw.service");
			const actions: CommandAction[] = [];
			const change = (...command: readonly string[]): CommandAction => ({
				kind: "command",
				command: ["ufw", ...command],
				changes: ruleFiles,
			});
			const add = (rule: Rule, ...how: string[]) =>
				actions.push({
					...change(...how, ...rule.split(" ")),
					undoIfChanged: [["ufw", "--force", "delete", ...rule.split(" ")]],
				});
			const takeOut = (rule: Rule) =>
				actions.push({
					...change("--force", "delete", ...rule.split(" ")),
					undoIfChanged: [["ufw", ...rule.split(" ")]],
				});
			for (const rule of misplaced) takeOut(rule);
			for (const rule of prepend) add(rule, "prepend");
			for (const rule of append) add(rule);
			for (const rule of remove) takeOut(rule);
			if (!state.deniesIncoming)
				actions.push({
					...change("default", "deny", "incoming"),
					changes: [defaultsFile, ...ruleFiles],
				});
			const first = actions[0];
			if (first !== undefined && state.isActive)
				actions[0] = { ...first, undo: [["ufw", "reload"]] };
			if (!state.isActive || !state.startsAtBoot)
				actions.push({
					...change("--force", "enable"),
					changes: [switchFile, ...ruleFiles],
					undo: state.isActive ? [["ufw", "reload"]] : [["ufw", "disable"]],
				});
			if (unit?.exists && !unit.isEnabled)
				actions.push({
					kind: "command",
					command: ["systemctl", "enable", "ufw.service"],
					undo: [["systemctl", "disable", "ufw.service"]],
				});
			const notes = [tailnetNote];
			if (remove.length > 0)
				notes.push(
					`Taken out: ${remove.join("; ")}. Such a rule opens what is to be closed, or trusts a source address that a neighbour on the LAN can forge; the rules for tailscale0 take its place.`,
				);
			if (actions.length === 0)
				return done("UFW is active, with all of these rules", notes);
			return todo(
				state.isActive
					? "UFW is active, and rules are missing or in the way"
					: "UFW is inactive: nothing is filtered",
				actions,
				notes,
			);
		},
		async prove() {
			const proofs: Proof[] = [];
			const state = await firewallState();
			proofs.push({
				ok: state.isActive && state.startsAtBoot && state.deniesIncoming,
				says: `UFW is ${state.isActive ? "active" : "inactive"}, ${state.startsAtBoot ? "starts" : "does not start"} at boot, and ${state.deniesIncoming ? "denies" : "allows"} what no rule speaks of`,
				advice: "see: ufw status verbose; systemctl is-enabled ufw",
			});
			for (const [program, chain] of [
				["iptables", "ufw-user-input"],
				["ip6tables", "ufw6-user-input"],
			] as const) {
				const rules = await outputOf(program, "-S", chain);
				// A host without IPv6, or with IPV6=no, has no such chain.
				if (rules === undefined) {
					if (program === "iptables")
						proofs.push({
							ok: false,
							says: "the kernel has no rules of UFW's",
							advice: "see: ufw reload",
						});
					continue;
				}
				const lines = rules.split("\n");
				const open = lines.findIndex(
					(line) =>
						/-i tailscale0 .*--dport 11434\b/.test(line) &&
						line.endsWith("-j ACCEPT"),
				);
				const shut = lines.findIndex(
					(line) => /--dport 11434\b.*-j DROP/.test(line) && !/-i /.test(line),
				);
				proofs.push({
					ok: open >= 0 && shut > open,
					says:
						open >= 0 && shut > open
							? `${program}: port 11434 is open on tailscale0 and shut everywhere else`
							: `${program}: the rules for port 11434 are not in force, or in the wrong order`,
					advice: "see: ufw status numbered",
				});
			}
			return proofs;
		},
	};
}

async function firewallState() {
	const status = (await runProgram(["ufw", "status", "verbose"])).stdout;
	const { content: conf } = await takeSnapshot(switchFile);
	const { content: defaults } = await takeSnapshot(defaultsFile);
	return {
		isActive: /^Status: active$/m.test(status),
		startsAtBoot: /^ENABLED=yes$/m.test(conf?.toString() ?? ""),
		deniesIncoming: /^DEFAULT_INPUT_POLICY="(DROP|REJECT)"$/m.test(
			defaults?.toString() ?? "",
		),
	};
}

import { everybody, isOpen, tailnet } from "../../netfilter/ufwPackets.ts";
import { planRules } from "../../netfilter/ufwPlan.ts";
import { parseRuleFile, type RuleList } from "../../netfilter/ufwRules.ts";
import { ufwSetting } from "../../netfilter/ufwSettings.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import {
	absent,
	type CommandAction,
	done,
	type Proof,
	type Step,
	todo,
	unsafe,
} from "../../setup/step.ts";
import { hasProgram, outputOf, runProgram } from "../../system/run.ts";
import {
	formatSocket,
	type ListeningSocket,
	waitingSockets,
} from "../../system/sockets.ts";
import { lookUpUnit } from "../../system/units.ts";
import { mainPidOf, propertiesOf } from "../gate/inspect.ts";
import {
	currentSshConnection,
	openSshConnections,
	type SshConnection,
	sshPorts,
} from "../sshd/inspect.ts";
import { forOthers, isDiscovery } from "./listeners.ts";
import { proveOllamaPort } from "./proofs.ts";
import { actionFor, type RuleFile, ruleFiles } from "./ruleActions.ts";

const switchFile = "/etc/ufw/ufw.conf";
const defaultsFile = "/etc/default/ufw";

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
			const unit = await lookUpUnit("ufw.service");
			if (unit?.isMasked)
				return unsafe(
					"ufw.service is masked, so UFW would be gone after the next boot; run: sudo systemctl unmask ufw.service, and then this again",
				);
			const ports = await sshPorts();
			const state = await firewallState();
			const { policy } = state;
			if (policy === undefined)
				return unsafe(
					`${defaultsFile} does not say in a way that all of UFW reads whether it lets in what no rule speaks of; put one line there, DEFAULT_INPUT_POLICY="DROP" (or "ACCEPT", if that is how it has been until now), and run this again`,
				);
			const ssh = await currentSshConnection();
			const connection = ssh && {
				...ssh,
				interfaceIn: await interfaceTo(ssh.clientAddress),
			};
			if (connection !== undefined && mayBeLeftOut(connection, ports, state))
				return unsafe(
					`you are logged in over port ${connection.serverPort}, and sshd does not say that it has it open (${ports.join(", ") || "none"}); allow it first: sudo ufw allow ${connection.serverPort}/tcp`,
				);
			if (
				!state.isActive &&
				state.dropsIpv6 &&
				(connection?.clientAddress.includes(":") || (await hasIpv6()))
			)
				return unsafe(
					`${defaultsFile} says IPV6=no, and UFW would drop all of this host's IPv6, SSH included; set IPV6=yes there, or, if that is meant, log in by IPv4 and turn UFW on yourself (sudo ufw allow ${ports[0] ?? 22}/tcp && sudo ufw enable), and run this again`,
				);
			const standing = state.isActive ? policy : "off";
			const changes = planRules(state.lists, ports, {
				default: standing,
				connection,
			});
			if (connection === undefined && standing !== "deny")
				for (const other of await openSshConnections(ports)) {
					const alsoIn = planRules(state.lists, ports, {
						default: standing,
						connection: {
							...other,
							interfaceIn: await interfaceTo(other.clientAddress),
						},
					});
					if (alsoIn.length > changes.length)
						return unsafe(
							`by which SSH connection you are logged in is not to be seen here (tmux, screen?), and the one from ${other.clientAddress} would be shut out by rules of yours; if that is you, allow it first: sudo ufw allow from ${other.clientAddress.replace(/%.*/, "")} to any port ${other.serverPort} proto tcp`,
						);
				}
			const actions = changes.map((change) => actionFor(change, state.files));
			const change = (...command: readonly string[]): CommandAction => ({
				kind: "command",
				command: ["ufw", ...command],
				changes: Object.values(ruleFiles),
			});
			if (policy === "allow")
				actions.push({
					...change("default", "deny", "incoming"),
					changes: [defaultsFile],
					undoIfChanged: [["ufw", "default", "allow", "incoming"]],
				});
			const first = actions[0];
			if (first !== undefined && state.isActive)
				actions[0] = { ...first, undo: [["ufw", "reload"]] };
			if (!state.isActive || !state.startsAtBoot)
				actions.push({
					...change("--force", "enable"),
					changes: [switchFile],
					...(state.isActive
						? { undo: [["ufw", "reload"]] }
						: {
								undo: [["ufw", "disable"]],
								undoIfChanged: [["ufw", "disable"]],
							}),
				});
			if (unit?.exists && !unit.isEnabled)
				actions.push({
					kind: "command",
					command: ["systemctl", "enable", "ufw.service"],
					undo: [["systemctl", "disable", "ufw.service"]],
				});
			const notes = [tailnetNote];
			const shut = state.isActive
				? []
				: openServices(
						await waitingSockets(),
						ports,
						mainPidOf(await propertiesOf("tailscaled.service")),
					);
			if (shut.length > 0)
				notes.push(
					`From then on the internet and the LAN no longer reach ${shut.join(", ")}. What they should go on reaching, allow: sudo ufw allow PORT/tcp, or PORT/udp`,
				);
			const taken = changes
				.filter(
					({ how, rule }) => how === "delete" && /^(allow|limit)/.test(rule),
				)
				.filter(({ rule }) =>
					changes.every(
						(other) => other.how === "delete" || other.rule !== rule,
					),
				)
				.map(({ rule }) => rule);
			if (taken.length > 0)
				notes.push(
					`Taken out: ${taken.join("; ")}. Such a rule opens what is to be closed, or trusts a source address that a neighbour on the LAN can forge; the rules for tailscale0 take its place.`,
				);
			if (
				standing === "deny" &&
				ports.some((port) =>
					state.lists.some(
						({ kind, rules }) => !isOpen(rules, everybody(kind, port)),
					),
				)
			)
				notes.push(
					"SSH is not open to everybody in UFW here; that stays as it is.",
				);
			if (actions.length === 0)
				return done("UFW is active, with all of these rules", notes);
			return todo(
				state.isActive
					? "UFW is active, and rules are missing or in the way"
					: "UFW is inactive",
				actions,
				notes,
			);
		},
		async prove() {
			const proofs: Proof[] = [];
			const state = await firewallState();
			const unit = await lookUpUnit("ufw.service");
			const startsAtBoot =
				state.startsAtBoot && (unit === undefined || unit.isEnabled);
			proofs.push({
				ok: state.isActive && startsAtBoot && state.policy === "deny",
				says: `UFW is ${state.isActive ? "active" : "inactive"}, ${startsAtBoot ? "starts" : "does not start"} at boot, and ${state.policy === "deny" ? "denies" : state.policy === "allow" ? "allows" : "may allow"} what no rule speaks of`,
				advice: "see: ufw status verbose; systemctl is-enabled ufw",
			});
			proofs.push(...(await proveOllamaPort(state.dropsIpv6)));
			return proofs;
		},
	};
}

/**
 * What others can reach now and will not when UFW is on, but for what this is all
 * about, and for what UFW lets in by itself.
 */
export function openServices(
	sockets: readonly ListeningSocket[],
	sshPorts: readonly number[],
	tailscaled: number | undefined,
): string[] {
	const spared = [...sshPorts, 11434, 3000, 8080];
	const shut = forOthers({ tailscaled }, sockets).filter(
		(socket) =>
			socket.device !== tailnet &&
			socket.device !== "lo" &&
			!isDiscovery(socket) &&
			!(socket.protocol === "tcp" && spared.includes(socket.port)),
	);
	return [...new Set(shut.map(formatSocket))];
}

/** By which interface this host sends to an address. */
async function interfaceTo(address: string): Promise<string | undefined> {
	const [plain = "", zone] = address.split("%");
	if (zone !== undefined) return zone;
	const route = await outputOf("ip", "-o", "route", "get", plain);
	return / dev (\S+)/.exec(route ?? "")?.[1];
}

/** Whether others than this host and the tailnet may come by IPv6. */
async function hasIpv6(): Promise<boolean> {
	const shown = await outputOf(
		"ip",
		"-6",
		"-o",
		"address",
		"show",
		"scope",
		"global",
	);
	return (shown ?? "")
		.split("\n")
		.some((line) => line !== "" && !line.includes(` ${tailnet} `));
}

interface FirewallState {
	readonly isActive: boolean;
	readonly startsAtBoot: boolean;
	/** What becomes of what no rule speaks of; `undefined` where UFW's settings do not tell for sure. */
	readonly policy: "allow" | "deny" | undefined;
	/** With IPV6=no UFW does not leave IPv6 alone: it drops all but loopback's (ufw-init-functions). */
	readonly dropsIpv6: boolean;
	readonly lists: readonly RuleList[];
	/** What the lists were read from. */
	readonly files: readonly RuleFile[];
}

/**
 * Whether the person may be logged in by an sshd that is not known here, and so
 * be shut out. Tailscale SSH is none, and its packets never meet UFW.
 */
function mayBeLeftOut(
	connection: SshConnection & { readonly interfaceIn: string | undefined },
	ports: readonly number[],
	{ lists }: FirewallState,
): boolean {
	return (
		!ports.includes(connection.serverPort) &&
		connection.interfaceIn !== tailnet &&
		connection.interfaceIn !== "lo" &&
		!lists.some(({ kind, rules }) =>
			isOpen(rules, everybody(kind, connection.serverPort)),
		)
	);
}

/** The policy of INPUT, as UFW is to read it: the last line that sets it. */
function policyOf(settings: string): FirewallState["policy"] {
	const value = ufwSetting(settings, "DEFAULT_INPUT_POLICY");
	if (value === "DROP" || value === "REJECT") return "deny";
	return value === "ACCEPT" ? "allow" : undefined;
}

async function firewallState(): Promise<FirewallState> {
	const status = (await runProgram(["ufw", "status", "verbose"])).stdout;
	const read = async (file: string) =>
		(await takeSnapshot(file)).content?.toString() ?? "";
	const [defaults, switches] = (await Promise.all(
		[defaultsFile, switchFile].map(read),
	)) as [string, string];
	const [rules4 = "", rules6 = ""] = await Promise.all(
		Object.values(ruleFiles).map(read),
	);
	const files: RuleFile[] = [{ kind: "ipv4", text: rules4 }];
	const filtersIpv6 = /^IPV6=["']?yes\b/im.test(defaults);
	// With IPV6=no UFW drops all of IPv6 but loopback's (ufw-init-functions), and keeps its rules.
	if (
		filtersIpv6 &&
		(await takeSnapshot("/proc/sys/net/ipv6")).snapshot.kind !== "nothing"
	)
		files.push({ kind: "ipv6", text: rules6 });
	return {
		isActive: /^Status: active$/m.test(status),
		startsAtBoot: /^yes$|^YES$/.test(ufwSetting(switches, "ENABLED") ?? ""),
		policy: policyOf(`${defaults}\n${switches}`),
		dropsIpv6: !filtersIpv6,
		files,
		lists: files.map(({ kind, text }) => ({
			kind,
			rules: parseRuleFile(text),
		})),
	};
}

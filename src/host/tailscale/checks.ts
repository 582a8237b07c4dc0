import { readFile } from "node:fs/promises";
import {
	absent,
	type Examination,
	finding,
	type Outcome,
	ok,
	oncePerLook,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { tailscaleAddressesOf } from "../../net/listener.ts";
import { askEach } from "../../system/httpProbe.ts";
import { hasProgram, missingProgram, outputOf } from "../../system/run.ts";
import { lookUpUnit } from "../../system/units.ts";
import type { TailscaleStatus } from "../../tailscale/localApi.ts";
import {
	type LocalPlaces,
	localPortOf,
	type ServedPort,
	servedPorts,
} from "../../tailscale/serveConfig.ts";
import { createWhois } from "../../tailscale/whois.ts";
import { gatePlace } from "../gate/step.ts";
import { answersAsOllama } from "../ollama/answers.ts";
import { lookForOllama } from "../ollama/servers.ts";
import { judgeFunnel, judgeServe, serveNotSeen } from "./served.ts";
import {
	adminPage,
	judgeAddresses,
	judgeKeyExpiry,
	judgeMagicDns,
	judgeState,
	judgeVersion,
	oldestVersion,
} from "./status.ts";
import { otherControlServer, preferences, tailscaleStatus } from "./step.ts";
import { describeDialer, loopbackDialers, tunnelFix } from "./userspace.ts";

const socket = "/var/run/tailscale/tailscaled.sock";
const both = { group: "tailscale", layer: "tailscale" } as const;

export const tailscaleExaminations: readonly Examination[] = [
	{
		...both,
		id: "tailscale.running",
		title: "Tailscale runs and is logged in",
		severity: "high",
		why: "Without it no device reaches the gate.",
		fix: "sudo tailscale up",
		async examine(patient) {
			if (!(await isInstalled())) return notInstalled();
			const answer = await askStatus(patient);
			const control = otherControlServer(await preferences());
			if (answer.kind === "status")
				return judgeState(answer.status.backendState, control);
			const place = await tailscaleStatus();
			if (place !== undefined) return judgeState(place.backendState, control);
			const unit = await lookUpUnit("tailscaled.service");
			if (answer.kind === "refused" || unit?.isActive)
				return unknown(answer.reason);
			return finding(["tailscaled does not run", answer.reason], {
				fix: "sudo systemctl enable --now tailscaled",
			});
		},
	},
	{
		...both,
		id: "tailscale.tunnel",
		title: "tailscaled has a tunnel device",
		severity: "high",
		why: "Without one (userspace networking) the gate has no tailscale0 to listen on, and peers get to what is on 127.0.0.1, Ollama too: see ollama.reachable.",
		fix: `${tunnelFix}, then:\nsudo systemctl restart tailscaled`,
		async examine(patient) {
			const { dialers, unclear } = await loopbackDialers();
			if (dialers.length > 0) return finding(dialers.map(describeDialer));
			return withStatus(patient, () =>
				unclear.length > 0
					? unknown(...unclear)
					: ok("tailscaled says that it has one"),
			);
		},
	},
	{
		...both,
		id: "tailscale.shields-up",
		title: "Tailscale lets this host's peers begin connections",
		severity: "high",
		why: "With its shields up tailscaled drops what peers send, and every client of the gate waits until it gives up; tailscale ping is answered all the same.",
		fix: "sudo tailscale set --shields-up=false",
		examine: (patient) =>
			withStatus(patient, async () => {
				const prefs = await preferences();
				if (prefs === undefined) return unknown(prefsNotSeen);
				return prefs.ShieldsUp === true
					? finding([
							"tailscaled's shields are up (--shields-up): no device of the tailnet reaches the gate",
						])
					: ok("its shields are down");
			}),
	},
	{
		...both,
		id: "tailscale.address",
		title: "tailscale0 has this host's Tailscale addresses",
		severity: "high",
		why: "The gate listens on the addresses of that interface, and on nothing while it has none.",
		fix: "sudo systemctl restart tailscaled",
		examine: (patient) =>
			withStatus(patient, async ({ userspace, addresses }) => {
				if (userspace) return absent("tailscaled has no tunnel device");
				const { device } = await gatePlace();
				return judgeAddresses(addresses, device, tailscaleAddressesOf(device));
			}),
	},
	{
		...both,
		id: "tailscale.magicdns",
		title: "MagicDNS gives this host a name",
		severity: "info",
		why: "Clients that use the name go on working when the address changes.",
		fix: `turn MagicDNS on at ${adminPage}/dns`,
		examine: (patient) =>
			withStatus(patient, async (status) => {
				const outcome = judgeMagicDns(status);
				const control = otherControlServer(await preferences());
				return outcome.state === "finding" && control !== undefined
					? {
							...outcome,
							fix: `turn MagicDNS on in the settings of ${control} (Headscale: dns.magic_dns)`,
						}
					: outcome;
			}),
	},
	{
		...both,
		id: "tailscale.key-expiry",
		title: "This host's node key stays good",
		severity: "high",
		why: "When it expires the host leaves the tailnet, and only a person with another way in can log it in again.",
		fix: "sudo tailscale up --force-reauth",
		async examine(patient) {
			if (!(await isInstalled())) return notInstalled();
			const answer = await askStatus(patient);
			if (answer.kind !== "status") return unknown(answer.reason);
			return judgeKeyExpiry(
				answer.status,
				patient.nowMs,
				otherControlServer(await preferences()),
			);
		},
	},
	{
		...both,
		id: "tailscale.netfilter",
		title: "tailscaled's own firewall rules are in force",
		severity: "warn",
		why: "They drop packets that claim a tailnet address and come in elsewhere; what holds the gate's sockets to tailscale0 is then the only thing that does.",
		fix: "sudo tailscale set --netfilter-mode=on",
		examine: (patient) =>
			withStatus(patient, async ({ userspace }) => {
				if (userspace)
					return absent(
						"without a tunnel device it needs none; see tailscale.tunnel",
					);
				const mode = (await preferences())?.NetfilterMode;
				if (mode === 0 || mode === 1) return judgeNetfilter(mode, "", "");
				if (!patient.isRoot)
					return unknown("only root can see the kernel's rules");
				const { device } = await gatePlace();
				return judgeNetfilter(mode, await kernelRules(), device);
			}),
	},
	{
		...both,
		id: "tailscale.funnel",
		layer: "internet",
		title: "Funnel publishes nothing of this host",
		severity: "high",
		why: "Funnel brings in the whole internet, past UFW; in front of the gate the key alone is left, in front of Ollama nothing.",
		fix: "sudo tailscale funnel reset",
		async examine(patient) {
			if (!(await isInstalled())) return notInstalled();
			const served = await servedPorts();
			if (served === undefined) return unknown(serveNotSeen);
			return judgeFunnel(served, await localPlaces(patient, served));
		},
	},
	{
		...both,
		id: "tailscale.serve",
		title: "Tailscale Serve leads nobody around the gate",
		severity: "critical",
		why: "tailscaled passes what it serves to loopback, where Ollama asks for no key; and what it serves on the gate's port takes the gate's place.",
		fix: "sudo tailscale serve reset",
		async examine(patient) {
			if (!(await isInstalled())) return notInstalled();
			const served = await servedPorts();
			if (served === undefined) return unknown(serveNotSeen);
			const outcome = judgeServe(served, await localPlaces(patient, served));
			return outcome.state === "ok" && served.length > 0 && !patient.isRoot
				? unknown("only root can see whether Ollama is behind what is served")
				: outcome;
		},
	},
	{
		...both,
		id: "tailscale.ssh",
		title: "Tailscale SSH is off, so that sshd alone decides who logs in",
		severity: "info",
		why: "With it the tailnet's policy lets devices log in to port 22 without any key of sshd's; look at its rules.",
		fix: "sudo tailscale set --ssh=false",
		examine: (patient) =>
			withStatus(patient, async () => {
				const prefs = await preferences();
				if (prefs === undefined) return unknown(prefsNotSeen);
				return prefs.RunSSH === true
					? finding([
							"Tailscale SSH is on: who gets in from the tailnet is decided by the policy's ssh rules",
						])
					: ok("Tailscale SSH is off");
			}),
	},
	{
		...both,
		id: "tailscale.health",
		title: "tailscaled has nothing to complain about",
		severity: "warn",
		why: "It knows first when the tailnet's names, relays or routes do not work from here.",
		fix: "tailscale status",
		examine: (patient) =>
			withStatus(patient, ({ health }) =>
				health.length > 0
					? finding(health.map((text) => `tailscaled says: ${text}`))
					: ok("tailscaled reports no problem"),
			),
	},
	{
		...both,
		id: "tailscale.version",
		title: `Tailscale is at least ${oldestVersion.join(".")}`,
		severity: "warn",
		why: "Older ones let others into the tailnet by way of its exit nodes and subnet routers (TS-2024-005).",
		fix: "sudo tailscale update",
		async examine(patient) {
			if (!(await isInstalled())) return notInstalled();
			const answer = await askStatus(patient);
			if (answer.kind !== "status") return unknown(answer.reason);
			return judgeVersion(answer.status.version);
		},
	},
];

const prefsNotSeen = "tailscale debug prefs did not answer";

const notInstalled = () => absent("Tailscale is not installed");

async function isInstalled(): Promise<boolean> {
	return (await hasProgram("tailscale")) || hasProgram("tailscaled");
}

/** What tailscaled says of itself. */
const askStatus = oncePerLook(() =>
	createWhois({ socket, timeoutMs: 5_000 }).status(),
);

/** Looks further where Tailscale is up; where it is not, nothing else is to be seen of it. */
async function withStatus(
	patient: Patient,
	look: (status: TailscaleStatus) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
	if (!(await isInstalled())) return notInstalled();
	const answer = await askStatus(patient);
	if (answer.kind !== "status") return unknown(answer.reason);
	const { backendState } = answer.status;
	if (backendState !== "Running")
		return unknown(
			`Tailscale is in state ${backendState}; see tailscale.running`,
		);
	return look(answer.status);
}

async function localPlaces(
	patient: Patient,
	served: readonly ServedPort[],
): Promise<LocalPlaces> {
	const [{ sockets, places }, { port }, answer] = await Promise.all([
		lookForOllama(patient),
		gatePlace(),
		askStatus(patient),
	]);
	const targets = [
		...new Set(served.flatMap(({ target }) => localPortOf(target) ?? [])),
	];
	const answers = await askEach(
		targets,
		async (target) =>
			(await answersAsOllama("127.0.0.1", target)) ||
			answersAsOllama("::1", target),
	);
	return {
		ollamaPorts: [
			11434,
			...[...sockets, ...places].map((one) => one.port),
			...targets.filter((_, index) => answers[index]),
		],
		webUiPorts: [3000, 8080],
		gatePort: port,
		tailnetAddresses: answer.kind === "status" ? answer.status.addresses : [],
	};
}

/** All rules that the kernel has for packets, by both of its tools. @throws if neither is there */
async function kernelRules(): Promise<string> {
	const nft = await outputOf("nft", "--stateless", "list", "ruleset");
	// Asking iptables-legacy would load its tables where there are none.
	const tables = await readFile("/proc/net/ip_tables_names", "utf8").catch(
		() => "",
	);
	const legacy = tables.includes("filter")
		? await outputOf("iptables-legacy", "-S")
		: "";
	const rules = [nft ?? (await outputOf("iptables", "-S")), legacy];
	if (rules[0] === undefined && !legacy) throw new Error(missingProgram("nft"));
	return rules.join("\n");
}

/**
 * @param mode of `tailscale debug prefs`
 * @param rules as `nft list ruleset` or `iptables -S` print them
 * @param device the tailnet's interface
 */
export function judgeNetfilter(
	mode: unknown,
	rules: string,
	device: string,
): Outcome {
	if (mode === 0)
		return finding([
			"tailscaled sets no firewall rules (--netfilter-mode=off)",
			"UFW then filters the tailnet too, and a LAN neighbour's forged 100.x source reaches all that is not held to tailscale0, as the gate's sockets are",
		]);
	if (mode === 1)
		return finding([
			"tailscaled makes its chains and leads no packet to them (--netfilter-mode=nodivert)",
			"what holds is what your own rules send to ts-input, and UFW; the gate's sockets are held to tailscale0",
		]);
	if (mode !== 2) return unknown(prefsNotSeen);
	const jumps = /jump ts-input|-j ts-input/.test(rules);
	const name = device.replace(/[^\w-]/g, "\\$&");
	const drops = new RegExp(
		`iifname != "${name}\\*?" ip saddr 100\\.64\\.0\\.0/10 (counter (packets \\d+ bytes \\d+ )?)?drop|-s 100\\.64\\.0\\.0/10 ! -i ${name}\\S* -j DROP`,
	).test(rules);
	if (jumps && drops)
		return ok(
			`the kernel leads packets to ts-input, which drops 100.64.0.0/10 from elsewhere than ${device}`,
		);
	return finding(
		[
			jumps
				? "tailscaled's chain ts-input drops no forged 100.64.0.0/10"
				: "tailscaled is to set firewall rules, and the kernel leads no packet to its chain ts-input",
		],
		{ fix: "sudo systemctl restart tailscaled" },
	);
}

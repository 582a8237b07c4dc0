import type { Examination } from "../../doctor/check.ts";
import { hasProgram } from "../../system/run.ts";
import { judgeDocker } from "./docker.ts";
import { look } from "./facts.ts";
import { setupUfw } from "./fixes.ts";
import { judgeForged } from "./forged.ts";
import { judgeListeners, judgeTailnet } from "./listeners.ts";
import { judgeGatePort, judgeSsh, judgeWebPorts, webPorts } from "./ports.ts";
import { judgeActive, judgeBoot, judgeDefault, judgeOrder } from "./rules.ts";

const common = {
	group: "firewall",
	layer: "firewall",
	needsRoot: true,
} as const;

/** Whether the host's firewall holds, by the rules that the kernel has. */
export const firewallExaminations: readonly Examination[] = [
	{
		...common,
		id: "firewall.active",
		title: "UFW's rules are in force",
		severity: "high",
		why: "Without a firewall whatever listens on this host is open to the LAN, and to the internet where no router is in between.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) =>
			judgeActive(await look(patient), await hasProgram("ufw")),
	},
	{
		...common,
		id: "firewall.default",
		title: "What no rule speaks of is dropped",
		severity: "high",
		why: "A program that starts tomorrow is then not open to everybody by itself.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeDefault(await look(patient)),
	},
	{
		...common,
		id: "firewall.ollama-port",
		title: "The gate's port and Ollama's are shut for all but the tailnet",
		severity: "high",
		why: "Ollama lets in anyone who reaches it: should it ever listen on all addresses again, the firewall is what is left.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeGatePort(await look(patient)),
	},
	{
		...common,
		id: "firewall.order",
		title: "No other rule lets in ahead of UFW's",
		severity: "high",
		why: "The first rule that accepts counts, so one ahead of UFW's chains undoes what UFW says.",
		fix: "sudo ufw reload",
		examine: async (patient) => judgeOrder(await look(patient)),
	},
	{
		...common,
		id: "firewall.boot",
		title: "UFW starts at boot",
		severity: "high",
		why: "A firewall that is gone after the next reboot is noticed by nobody.",
		fix: setupUfw,
		step: "ufw",
		needsRoot: false,
		examine: () => judgeBoot(),
	},
	{
		...common,
		id: "firewall.web-ports",
		title: `Ports ${webPorts.join(" and ")} are shut for all but the tailnet`,
		severity: "warn",
		why: "Open WebUI listens there, in the clear; HTTPS by Tailscale Serve is the way in.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeWebPorts(await look(patient)),
	},
	{
		...common,
		id: "firewall.listeners",
		title: "Only SSH is open to the LAN or the internet",
		severity: "warn",
		why: "What listens on all addresses and is let in is open to anyone who is on the same network, and often to everybody.",
		fix: "sudo ufw status numbered",
		examine: async (patient) => judgeListeners(await look(patient)),
	},
	{
		...common,
		id: "firewall.docker",
		title: "No published port goes around UFW",
		severity: "warn",
		why: "Docker leads a published port to its container before UFW's rules are asked, so UFW's deny does nothing for it.",
		fix: "publish it on 127.0.0.1: docker run -p 127.0.0.1:PORT:PORT",
		examine: async (patient) => judgeDocker(await look(patient)),
	},
	{
		...common,
		id: "firewall.tailnet",
		title: "The tailnet reaches the gate and nothing else",
		severity: "info",
		why: "tailscaled lets the tailnet in ahead of UFW, so what listens on all addresses is open to each of its devices.",
		fix: "llamagate policy print",
		examine: async (patient) => judgeTailnet(await look(patient)),
	},
	{
		...common,
		id: "firewall.forged-source",
		title: "Nobody on the LAN passes for a device of the tailnet",
		severity: "info",
		why: "A neighbour can write any source address on its packets, one of the tailnet's, too.",
		fix: setupUfw,
		step: "ufw",
		examine: async (patient) => judgeForged(await look(patient)),
	},
	{
		...common,
		id: "firewall.ssh",
		title: "SSH is open to the tailnet alone",
		severity: "info",
		why: "A port that everybody reaches is tried by everybody; keys and fail2ban hold that, and Tailscale SSH does without the port.",
		fix: "sudo ufw delete allow 22/tcp",
		examine: async (patient) => judgeSsh(await look(patient)),
	},
];

import { createWhois, type TailscaleStatus } from "../net/tailscale.ts";
import { hasProgram, outputOf } from "./program.ts";
import { absent, done, type Step, unsafe } from "./step.ts";

const socket = "/var/run/tailscale/tailscaled.sock";

/** What `tailscale debug prefs` tells, as far as it matters here. */
interface Preferences {
	readonly RunSSH?: boolean;
	/** 0 off, 1 nodivert, 2 on (preftype.NetfilterMode). */
	readonly NetfilterMode?: number;
}

/** This host's place in the tailnet, as tailscaled tells it; `undefined` if it does not run. */
export async function tailscaleStatus(): Promise<TailscaleStatus | undefined> {
	const client = createWhois({ socket });
	const answer = await client.status();
	return answer.kind === "status" ? answer.status : undefined;
}

/** The tailnet: looked at and explained, and left alone, since joining it takes a person and a browser. */
export function tailscale(): Step {
	return {
		id: "tailscale",
		title: "The tailnet",
		why: "Your devices reach the gate over Tailscale and nothing else does.",
		async inspect() {
			if (!(await hasProgram("tailscale")))
				return absent(
					"Tailscale is not installed; see https://tailscale.com/download/linux. The gate waits for it",
				);
			const status = await tailscaleStatus();
			if (status === undefined)
				return unsafe(
					"tailscaled does not run; start it: sudo systemctl enable --now tailscaled",
				);
			if (status.backendState !== "Running")
				return unsafe(
					`Tailscale is in state ${status.backendState}; log in with: sudo tailscale up. The gate waits for its address`,
				);
			const notes: string[] = [];
			const preferences = JSON.parse(
				(await outputOf("tailscale", "debug", "prefs")) ?? "{}",
			) as Preferences;
			notes.push(
				preferences.RunSSH
					? "Tailscale SSH is on. Port 22 stays open in UFW all the same: close it yourself (sudo ufw delete allow 22/tcp) once you have logged in by Tailscale SSH from another device, with this session still open."
					: "Tailscale SSH is off. It lets your devices log in without port 22 (sudo tailscale set --ssh). Try it from another device before you close port 22: whoever closes it first may be locked out.",
			);
			if (preferences.NetfilterMode === 0)
				notes.push(
					"tailscaled sets no firewall rules (--netfilter-mode=off): UFW then does filter the tailnet, and nothing drops a LAN neighbour's forged 100.x address. The gate's socket is bound to tailscale0 and is not reached that way.",
				);
			if (status.userspace)
				return unsafe(
					"tailscaled runs without a tunnel device (userspace networking), so there is no tailscale0 to listen on; run it with one",
					notes,
				);
			if (status.magicDnsSuffix === "")
				notes.push(
					"MagicDNS is off, so clients use the address; turn it on at https://login.tailscale.com/admin/dns to use a name.",
				);
			const name = status.dnsName.split(".")[0] ?? "";
			const where = [...(name === "" ? [] : [name]), ...status.addresses];
			return done(`this host is ${where.join(", ")}`, notes);
		},
		async prove() {
			return [];
		},
	};
}

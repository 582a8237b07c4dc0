import { absent, done, type Step, unsafe } from "../../setup/step.ts";
import { hasProgram, outputOf } from "../../system/run.ts";
import {
	goesAroundGate,
	type LocalPlaces,
	offCommand,
	type ServedPort,
	servedPorts,
} from "../../tailscale/serveConfig.ts";
import { createWhois } from "../../tailscale/whois.ts";
import { visible } from "../../visible.ts";
import { tunnelFix } from "./userspace.ts";

const socket = "/var/run/tailscale/tailscaled.sock";

/** What `tailscale debug prefs` tells (ipn/prefs.go:Prefs), as far as it matters here. */
export interface Preferences {
	readonly RunSSH?: unknown;
	/** 0 off, 1 nodivert, 2 on (preftype.NetfilterMode). */
	readonly NetfilterMode?: unknown;
	/** Whether what peers begin is dropped. */
	readonly ShieldsUp?: unknown;
	/** The control server; empty or Tailscale's own before the first login to another. */
	readonly ControlURL?: unknown;
}

/** `undefined` where tailscale does not say. */
export async function preferences(): Promise<Preferences | undefined> {
	const prefs = await jsonOf<unknown>("tailscale", "debug", "prefs");
	return typeof prefs === "object" && prefs !== null ? prefs : undefined;
}

/** The URL of a control server that is not Tailscale's own, such as a Headscale; `undefined` where it is Tailscale's, or not known. */
export function otherControlServer(
	prefs: Preferences | undefined,
): string | undefined {
	const url = prefs?.ControlURL;
	if (typeof url !== "string" || !URL.canParse(url)) return undefined;
	const { protocol, host, hostname } = new URL(url);
	return /(^|\.)tailscale\.com$/.test(hostname)
		? undefined
		: visible(`${protocol}//${host}`);
}

/** This host's place in the tailnet, as far as setup asks. */
export interface TailnetPlace {
	/** `Running`, or what keeps it from that (ipn.State). */
	readonly backendState: string;
	readonly userspace: boolean;
	readonly addresses: readonly string[];
	readonly dnsName: string;
	readonly magicDns: boolean | undefined;
	/** `undefined` where that was not to be learnt. */
	readonly certDomains: readonly string[] | undefined;
}

/** Asks tailscaled, or its command where the socket lies elsewhere; `undefined` if it does not run. */
export async function tailscaleStatus(): Promise<TailnetPlace | undefined> {
	const answer = await createWhois({ socket }).status();
	if (answer.kind === "status") return answer.status;
	const status = await jsonOf<{
		readonly BackendState?: string;
		readonly TUN?: boolean;
		readonly CurrentTailnet?: { readonly MagicDNSEnabled?: boolean } | null;
		readonly CertDomains?: readonly string[] | null;
		readonly TailscaleIPs?: readonly string[] | null;
		readonly Self?: {
			readonly TailscaleIPs?: readonly string[] | null;
			readonly DNSName?: string;
		};
	}>("tailscale", "status", "--json");
	if (status?.BackendState === undefined) return undefined;
	return {
		backendState: status.BackendState,
		userspace: status.TUN === false,
		addresses: status.Self?.TailscaleIPs ?? status.TailscaleIPs ?? [],
		dnsName: status.Self?.DNSName?.replace(/\.$/, "") ?? "",
		magicDns: status.CurrentTailnet?.MagicDNSEnabled,
		certDomains:
			status.CertDomains === null ? [] : (status.CertDomains ?? undefined),
	};
}

/** What a command prints as JSON; `undefined` if it failed or printed something else. */
async function jsonOf<T>(...command: string[]): Promise<T | undefined> {
	try {
		return JSON.parse((await outputOf(...command)) ?? "") as T;
	} catch {
		return undefined;
	}
}

/** Where Tailscale Serve or Funnel takes requests past the gate: to Ollama itself, or on the gate's own port. */
async function waysPastGate(
	tailnetAddresses: readonly string[],
): Promise<readonly ServedPort[]> {
	const gatePort = 11434;
	const places: LocalPlaces = {
		ollamaPorts: [11434],
		webUiPorts: [],
		gatePort,
		tailnetAddresses,
	};
	return ((await servedPorts()) ?? []).filter((served) =>
		goesAroundGate(served, places),
	);
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
			const prefs = (await preferences()) ?? {};
			notes.push(
				prefs.RunSSH === true
					? "Tailscale SSH is on. Port 22 stays open in UFW all the same: close it yourself (sudo ufw delete allow 22/tcp) once you have logged in by Tailscale SSH from another device, with this session still open."
					: "Tailscale SSH is off. It lets your devices log in without port 22 (sudo tailscale set --ssh). Try it from another device before you close port 22: anyone who closes it first may be locked out.",
			);
			if (prefs.NetfilterMode === 0)
				notes.push(
					"tailscaled sets no firewall rules (--netfilter-mode=off): UFW then does filter the tailnet, and nothing drops a LAN neighbour's forged 100.x address. The gate's sockets are held to tailscale0 and are not reached that way.",
				);
			const past = await waysPastGate(status.addresses);
			if (past.length > 0)
				return unsafe(
					`Tailscale Serve leads ${past.map(({ where, target }) => `${where} to ${target}`).join(" and ")}, past the gate and without a key${past.some(({ funnel }) => funnel) ? ", from the internet too" : ""}; end that: ${[...new Set(past.map(offCommand))].join("; ")}`,
					notes,
				);
			if (status.userspace)
				return unsafe(
					`tailscaled runs without a tunnel device (userspace networking): the gate has no tailscale0, and peers get to what is on 127.0.0.1, Ollama too. To mend it, ${tunnelFix}`,
					notes,
				);
			if (prefs.ShieldsUp === true)
				return unsafe(
					"tailscaled's shields are up: it drops what other devices begin, so no client reaches the gate. Let them in with: sudo tailscale set --shields-up=false",
					notes,
				);
			if (status.magicDns === false)
				notes.push(
					`MagicDNS is off, so clients use the address; to use a name, turn it on ${otherControlServer(prefs) === undefined ? "at https://login.tailscale.com/admin/dns" : `in the settings of ${otherControlServer(prefs)}`}.`,
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

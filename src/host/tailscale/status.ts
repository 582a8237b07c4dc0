import { finding, type Outcome, ok, unknown } from "../../doctor/check.ts";
import type { TailscaleStatus } from "../../tailscale/localApi.ts";

const dayMs = 86_400_000;
/** How long before its end a node key is worth a word. */
const keyNoticeMs = 14 * dayMs;
/** Where Tailscale tells everybody to be, for TS-2024-005 (its release notes). */
export const oldestVersion = [1, 66, 0] as const;

export const adminPage = "https://login.tailscale.com/admin";

/**
 * @param state ipn.State
 * @param control the control server, where it is not Tailscale's
 */
export function judgeState(state: string, control?: string): Outcome {
	switch (state) {
		case "Running":
			return ok("tailscaled is in state Running");
		case "NeedsMachineAuth":
			return finding(["this machine waits for the tailnet's approval"], {
				fix:
					control === undefined
						? `approve it at ${adminPage}/machines`
						: `approve it on ${control}`,
			});
		case "NeedsLogin":
			return finding(["Tailscale is logged out"]);
		case "Stopped":
			return finding(["Tailscale was stopped (tailscale down)"]);
		default:
			return unknown(
				`tailscaled is in state ${state === "" ? "(none)" : state}; look again in a minute`,
			);
	}
}

export function judgeAddresses(
	given: readonly string[],
	device: string,
	present: readonly string[],
): Outcome {
	if (given.length === 0) return unknown("tailscaled names no address");
	const missing = given.filter((address) => !present.includes(address));
	if (missing.length === 0) return ok(`${device} has ${given.join(", ")}`);
	const says = `${device} does not have ${missing.join(", ")}, which tailscaled says is this host's`;
	return missing.length === given.length
		? finding([says])
		: // A kernel without IPv6, most likely.
			finding([says], { severity: "info" });
}

export function judgeMagicDns({ magicDns, dnsName }: TailscaleStatus): Outcome {
	if (magicDns === undefined) return unknown("tailscaled does not say");
	return magicDns && dnsName !== ""
		? ok(`this host is ${dnsName}`)
		: finding(["MagicDNS is off in this tailnet: clients have to use 100.x"]);
}

/** @param control the control server, where it is not Tailscale's */
export function judgeKeyExpiry(
	{
		keyExpiresAtMs,
		backendState,
		isTagged,
	}: Pick<TailscaleStatus, "keyExpiresAtMs" | "backendState" | "isTagged">,
	nowMs: number,
	control?: string,
): Outcome {
	if (keyExpiresAtMs === undefined)
		return backendState === "Running"
			? finding(
					[
						"the node key does not expire: right for a server, and it stays good for anyone who copies it",
					],
					{
						severity: "info",
						fix:
							control === undefined
								? `leave it, or turn key expiry on for this machine at ${adminPage}/machines`
								: `leave it, or have ${control} give it an end (Headscale: headscale nodes expire)`,
					},
				)
			: unknown(`Tailscale is in state ${backendState}; see tailscale.running`);
	const end = new Date(keyExpiresAtMs).toISOString().slice(0, 10);
	const leftMs = keyExpiresAtMs - nowMs;
	const login =
		control === undefined
			? "sudo tailscale up --force-reauth"
			: isTagged
				? // Its own key does not bring it back: the server goes on saying that it has expired.
					`on ${control} delete this node (Headscale: headscale nodes delete) and make an auth key with its tags, then:\nsudo tailscale up --force-reauth --login-server=${control} --auth-key=KEY`
				: `sudo tailscale up --force-reauth --login-server=${control}`;
	if (leftMs <= 0)
		return finding([`the node key expired on ${end}`], { fix: login });
	if (leftMs < keyNoticeMs)
		return finding([`the node key expires on ${end}`], {
			severity: "warn",
			fix: `${control === undefined ? `turn key expiry off for this machine at ${adminPage}/machines, or log in anew, which interrupts connections:\n` : "log in anew, which interrupts connections:\n"}${login}`,
		});
	return ok(`the node key expires on ${end}`);
}

/** @param version tailscaled's own: `1.96.2-t0123456789` */
export function judgeVersion(version: string): Outcome {
	const [, ...parts] = /^(\d+)\.(\d+)\.(\d+)/.exec(version) ?? [];
	if (parts.length < 3)
		return unknown(`tailscaled calls its version ${JSON.stringify(version)}`);
	for (const [index, oldest] of oldestVersion.entries()) {
		const part = Number(parts[index]);
		if (part > oldest) break;
		if (part < oldest) return finding([`tailscaled is ${version}`]);
	}
	return ok(`tailscaled is ${version}`);
}

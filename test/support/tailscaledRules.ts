import type { BootedHost } from "./bootedHost.ts";
import { addresses } from "./namespaces.ts";

/**
 * Filters a host's traffic as its tailscaled would with `--netfilter-mode=on`:
 * a chain of its own at the top of INPUT, in the order of
 * util/linuxfw/iptables_runner.go (AddLoopbackRule, addBase4, addBase6). What
 * comes in over tailscale0 is accepted before any rule of the host's own, and
 * what pretends to come from the tailnet over another interface is dropped; for
 * IPv6 there is no such drop.
 */
export async function replayTailscaledRules(
	host: Pick<BootedHost, "must">,
): Promise<void> {
	const chain = "ts-input";
	const own = addresses.server.v4;
	const wireguard = ["-p", "udp", "--dport", "41641", "-j", "ACCEPT"];
	const elsewhere = ["!", "-i", "tailscale0", "-s"];
	for (const tables of ["iptables", "ip6tables"]) {
		const v4 = tables === "iptables";
		const rules = [
			...(v4 ? [["-i", "lo", "-s", own, "-j", "ACCEPT"]] : []),
			["-i", "tailscale0", "-j", "ACCEPT"],
			wireguard,
			// ChromeOS gives these to its containers.
			...(v4 ? [[...elsewhere, "100.115.92.0/23", "-j", "RETURN"]] : []),
			...(v4 ? [[...elsewhere, "100.64.0.0/10", "-j", "DROP"]] : []),
		];
		await host.must(tables, "-N", chain);
		for (const rule of rules) await host.must(tables, "-A", chain, ...rule);
		await host.must(tables, "-I", "INPUT", "1", "-j", chain);
	}
}

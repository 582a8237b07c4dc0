import type { Test } from "tap";
import { type BootedHost, bootHost } from "./bootedHost.ts";
import { commandOf, examine, type Findings, statesOf } from "./doctor.ts";
import { addresses, listener, type Namespace } from "./namespaces.ts";
import { runSetup } from "./setupHost.ts";
import { replayTailscaledRules } from "./tailscaledRules.ts";

/** A host that setup has locked, and what is done to it to see what doctor says. */
export interface LockedHost {
	readonly host: BootedHost;
	readonly neighbour: Namespace;
	readonly peer: Namespace;
	/** What becomes of one check: `ok`, `high`. */
	stateOf(id: string): Promise<string | undefined>;
	/** Runs the command that a finding names, and sees it gone. */
	mend(t: Test, findings: Findings, id: string): Promise<void>;
	/** Has something listen, until it is ended. */
	listen(address: string, port: number): Promise<() => Promise<unknown>>;
}

/** Its address on the LAN. */
export const lan = addresses.lanServer.v4;

/** Boots one, on the internet, a LAN and a tailnet, with tailscaled's rules. */
export async function lockHost(t: Test): Promise<LockedHost> {
	const host = await bootHost(t, { llamagate: "installed" });
	await host.plugPublic();
	const neighbour = await host.plugLan();
	const peer = await host.plugTailnet();
	await replayTailscaledRules(host);
	const { report } = await runSetup(host, "--yes");
	t.equal(report.steps.find(({ id }) => id === "ufw")?.state, "changed");
	const stateOf = async (id: string) => statesOf(await examine(host, [id]))[id];
	return {
		...{ host, neighbour, peer, stateOf },
		async mend(t, findings, id) {
			await host.sh(
				// What asks a person is told yes.
				commandOf(findings, id).replace(/(llamagate setup.*)/, "$1 --yes"),
			);
			t.equal(await stateOf(id), "ok", `${id} is mended`);
		},
		async listen(address, port) {
			const unit = `listener-${port}`;
			await host.must(
				...["systemd-run", "--quiet", "--collect", `--unit=${unit}`],
				...listener(address, port),
			);
			await host.sh(
				`until ss -Hltnp sport = ${port} | grep -q python3; do systemctl is-active --quiet ${unit}; sleep 0.05; done`,
			);
			return () => host.run("systemctl", "stop", unit);
		},
	};
}

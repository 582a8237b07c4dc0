import type { Test } from "tap";
import { type BootedHost, bootHost } from "./bootedHost.ts";
import {
	addresses,
	ask,
	becomes,
	curlExits,
	gateV4,
	gateV6,
	linesOf,
	type Namespace,
	ollama,
} from "./namespaces.ts";

// tailscaled takes tailscale0 away when it stops and makes it anew when it starts.
// On a host with udev, systemd has a unit of the interface, which comes and goes too.

/** systemd's unit of tailscale0. */
export const deviceUnit = "sys-subsystem-net-devices-tailscale0.device";

/** A file that has the follower give up what is gone after three seconds, and not after half a minute. */
export const shortGrace = [
	"/etc/systemd/system/llamagate-listen.service.d/grace.conf",
	"[Service]\nEnvironment=GRACE_S=3\n",
] as const;

/** Boots a host with udev, tailscale0 and a gate that serves on it. */
export async function startWithUdev(
	t: Test,
	install?: (root: string) => Promise<void>,
) {
	const host = await bootHost(t, {
		udev: true,
		...(install !== undefined && { install }),
	});
	const peer = await host.plugTailnet();
	const status = async (gate: string) => (await ask(peer, gate)).status;
	const isActive = async (unit: string) =>
		(await host.run("systemctl", "is-active", unit)).stdout.trim();
	await becomes(t, () => status(gateV4), 401, "the gate serves");
	await becomes(
		t,
		() => isActive(deviceUnit),
		"active",
		"systemd has its unit",
	);
	return {
		...{ host, peer, status, isActive },
		async gateListens() {
			const all = await host.network.listeners();
			return all.filter((at) => at.endsWith(":11434") && at !== ollama);
		},
	};
}

/** That a gate which is stopped now stays so through changes of tailscale0. */
export async function staysStopped(t: Test, host: BootedHost): Promise<void> {
	await host.must("systemctl", "stop", "llamagate.socket");
	// The follower has been through one change once it says something of the next.
	for (const own of [
		{ v4: "100.101.102.110", v6: "fd7a:115c:a1e0::110" },
		{ v4: "100.101.102.111", v6: "fd7a:115c:a1e0::111" },
		addresses.server,
	]) {
		await host.unplugTailnet();
		await host.plugTailnet(own);
		await becomes(
			t,
			async () =>
				(await host.journal("llamagate-listen")).findLast((line) =>
					line.startsWith("tailscale0 has 100"),
				),
			`tailscale0 has ${own.v4} [${own.v6}]`,
			`the follower knows ${own.v4}`,
		);
	}
	for (const unit of ["llamagate.socket", "llamagate.service"]) {
		const { stdout } = await host.run("systemctl", "is-active", unit);
		t.equal(stdout, "inactive\n", unit);
	}
}

/** Asks the gate's addresses without an end, over the LAN, and says what came of it. */
export function knockAllTheTime(neighbour: Namespace) {
	const noHandshake = [curlExits.refused, curlExits.timeout];
	const child = neighbour.start(
		...["sh", "-c"],
		`while :; do
			for gate in ${gateV4} ${gateV6}; do
				curl --silent --output /dev/null --connect-timeout 1 --max-time 5 "http://$gate/api/tags"
				case $? in ${noHandshake.join(" | ")}) echo refused ;; *) echo open ;; esac
			done
		done`,
	);
	return linesOf(child, (line) => line);
}

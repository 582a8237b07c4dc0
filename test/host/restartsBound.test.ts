import { rm } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { booting } from "../support/bootedHost.ts";
import { becomes, gateV4, gateV6 } from "../support/namespaces.ts";
import {
	deviceUnit,
	knockAllTheTime,
	startWithUdev,
	staysStopped,
} from "../support/restarts.ts";

t.test(
	"tailscaled is restarted on a host with udev and without nftables",
	booting(),
	async (t) => {
		const { host, status, gateListens, isActive } = await startWithUdev(
			t,
			(root) => rm(path.join(root, "usr/sbin/nft")),
		);
		const bound = [gateV4, gateV6].map((gate) =>
			gate.replace(/:11434$/, "%tailscale0:11434"),
		);
		const neighbour = await host.plugLan();
		const knocks = knockAllTheTime(neighbour);
		await knocks.seen((said) => said === "refused");

		await t.test("the gate serves after each restart", async (t) => {
			for (const round of [1, 2, 3, 4]) {
				await host.unplugTailnet();
				await becomes(t, () => isActive(deviceUnit), "inactive", "it is gone");
				// In every other round it comes back before the gate has let go.
				if (round % 2 === 0)
					await becomes(t, gateListens, [], `${round}: nothing listens`);
				await host.plugTailnet();
				await becomes(t, () => status(gateV4), 401, `${round}: over IPv4`);
				await becomes(t, () => status(gateV6), 401, `${round}: over IPv6`);
				await becomes(t, gateListens, bound, `${round}: bound to it`);
			}
		});

		await t.test(
			"an interface that goes while the sockets wait for it is no reason to give up",
			async (t) => {
				await host.unplugTailnet();
				await becomes(t, () => isActive(deviceUnit), "inactive", "it is gone");
				// systemd learns nothing of the next, and the start has to wait for it.
				const udev = [".service", "-kernel.socket", "-control.socket"].map(
					(part) => `systemd-udevd${part}`,
				);
				await host.must("systemctl", "stop", ...udev);
				await host.plugTailnet();
				const waits = async () =>
					(await host.must("systemctl", "list-jobs", "--no-legend")).includes(
						"llamagate.socket",
					);
				await becomes(t, waits, true, "the start waits");
				await host.unplugTailnet();
				await host.must("systemctl", "start", ...udev);
				await host.plugTailnet();
				await becomes(t, () => status(gateV4), 401, "it serves again");
			},
		);

		await t.test("a gate that somebody stopped stays stopped", (t) =>
			staysStopped(t, host),
		);

		t.notOk(
			knocks.all.some((said) => said === "open"),
			"all the while the LAN got no handshake",
		);
	},
);

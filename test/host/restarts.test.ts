import t, { type Test } from "tap";
import { type BootedHost, bootHost, booting } from "../support/bootedHost.ts";
import { testKeys } from "../support/gate.ts";
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
	startStream,
} from "../support/namespaces.ts";

// tailscaled takes tailscale0 away when it stops and makes it anew when it starts.
// On a host with udev, systemd has a unit of the interface, which comes and goes too.

const key = testKeys.user;
const device = "sys-subsystem-net-devices-tailscale0.device";
/** Exit codes of curl(1) for who gets no handshake. */
const noHandshake = [curlExits.refused, 28];

t.test(
	"tailscaled is restarted on a host with udev and nftables",
	booting(),
	async (t) => {
		const { host, peer, status, gateListens, isActive } = await start(t);
		const neighbour = await host.plugLan();
		const knocks = knockAllTheTime(neighbour);
		await knocks.seen((said) => said === "refused");

		await t.test(
			"a stream lives through one restart after the other, and the gate serves after each",
			async (t) => {
				const stream = startStream(peer, gateV4, key);
				await stream.seen((_, index) => index === 1);
				const pid = await mainPid(host);
				for (const round of [1, 2, 3, 4]) {
					await host.unplugTailnet();
					await becomes(t, () => isActive(device), "inactive", "it is gone");
					await host.plugTailnet();
					await becomes(t, () => isActive(device), "active", "it is back");
					await becomes(t, () => status(gateV4), 401, `${round}: over IPv4`);
					await becomes(t, () => status(gateV6), 401, `${round}: over IPv6`);
					const { length } = stream.all;
					const line = await stream.seen((_, index) => index > length);
					t.equal(line.done, false, `${round}: tokens keep coming`);
				}
				t.equal(await mainPid(host), pid, "the gate was not restarted");
			},
		);

		await t.test(
			"an interface that stays away is given up with its streams, and served when it is back",
			async (t) => {
				const stream = startStream(peer, gateV4, key);
				await stream.seen((_, index) => index === 1);
				const pid = await mainPid(host);
				await host.unplugTailnet();
				await becomes(t, gateListens, [], "nothing listens for it");
				await becomes(
					t,
					async () =>
						(await mainPid(host)) !== pid &&
						(await isActive("llamagate.service")) === "active",
					true,
					"another gate waits",
				);
				await host.plugTailnet();
				await becomes(t, () => status(gateV4), 401, "it serves again");
			},
		);

		await t.test(
			"who flushes the rules of nftables opens nothing, and what was flushed is put back",
			async (t) => {
				await host.must("nft", "flush", "ruleset");
				const { curlExit } = await ask(neighbour, gateV4, { key });
				t.equal(curlExit, curlExits.refused, "the LAN is turned away");
				await becomes(t, () => hasTable(host, "llamagate"), true, "it is back");
				t.equal(await status(gateV4), 401, "a peer is not");
			},
		);

		await t.test(
			"a process that holds the rules and ends is followed by another, and opens nothing",
			async (t) => {
				await host.must("pkill", "nft");
				const { curlExit } = await ask(neighbour, gateV4, { key });
				t.equal(curlExit, curlExits.refused, "the LAN is turned away");
				await becomes(t, () => hasTable(host, "llamagate_held"), true, "held");
				await host.must("systemctl", "restart", "llamagate-listen");
				const second = await ask(neighbour, gateV6, { key });
				t.equal(second.curlExit, curlExits.refused, "over IPv6, too");
				await becomes(t, () => hasTable(host, "llamagate_held"), true, "held");
			},
		);

		await t.test(
			"a stream whose route leads to the LAN stays in the host",
			async (t) => {
				await host.sh(`nft add table inet seen
					for hook in output postrouting; do
						nft add chain inet seen $hook "{ type filter hook $hook priority -20; }"
						nft add rule inet seen $hook oifname eth0 tcp sport 11434 'tcp flags & rst == 0' counter
					done`);
				const packets = async (hook: string) => {
					const rules = await host.must(
						"nft",
						"list",
						"chain",
						"inet",
						"seen",
						hook,
					);
					return Number(/packets (\d+)/.exec(rules)?.[1]);
				};
				const stream = startStream(peer, gateV4, key);
				await stream.seen((_, index) => index === 1);
				await host.network.ip(
					`route add ${addresses.peer.v4}/32 via ${addresses.lanNeighbour.v4}`,
				);
				await becomes(
					t,
					async () => (await packets("output")) > 3,
					true,
					"it would go there",
				);
				t.equal(await packets("postrouting"), 0, "and does not");
				const { curlExit } = await ask(neighbour, gateV4, { key });
				t.equal(curlExit, curlExits.refused, "a reset may");
				await host.network.ip(`route del ${addresses.peer.v4}/32`);
				const { length } = stream.all;
				await stream.seen((_, index) => index > length);
				await host.must("nft", "delete", "table", "inet", "seen");
			},
		);

		await t.test("a gate that somebody stopped stays stopped", (t) =>
			staysStopped(t, host),
		);

		await t.test("what turned others away goes with the sockets", async (t) => {
			t.equal(await hasTable(host, "llamagate"), false);
		});

		t.notOk(
			knocks.all.some((said) => said === "open"),
			"all the while the LAN got no handshake",
		);
	},
);

async function start(t: Test, install?: (root: string) => Promise<void>) {
	const host = await bootHost(t, {
		udev: true,
		...(install !== undefined && { install }),
	});
	const peer = await host.plugTailnet();
	const status = async (gate: string) => (await ask(peer, gate)).status;
	const isActive = async (unit: string) =>
		(await host.run("systemctl", "is-active", unit)).stdout.trim();
	await becomes(t, () => status(gateV4), 401, "the gate serves");
	await becomes(t, () => isActive(device), "active", "systemd has its unit");
	return {
		...{ host, peer, status, isActive },
		async gateListens() {
			const all = await host.network.listeners();
			return all.filter((at) => at.endsWith(":11434") && at !== ollama);
		},
	};
}

async function staysStopped(t: Test, host: BootedHost): Promise<void> {
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

async function hasTable(host: BootedHost, name: string): Promise<boolean> {
	return (await host.run("nft", "list", "table", "inet", name)).code === 0;
}

function mainPid(host: BootedHost): Promise<string> {
	return host.must(
		...["systemctl", "show", "--property=MainPID", "--value"],
		"llamagate.service",
	);
}

/** Asks the gate's addresses without an end, over the LAN, and says what came of it. */
function knockAllTheTime(neighbour: Namespace) {
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

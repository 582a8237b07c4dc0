import t from "tap";
import { type BootedHost, booting } from "../support/bootedHost.ts";
import { testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	curlExits,
	gateV4,
	gateV6,
	startStream,
} from "../support/namespaces.ts";
import {
	deviceUnit,
	knockAllTheTime,
	shortGrace,
	startWithUdev,
	staysStopped,
} from "../support/restarts.ts";

const key = testKeys.user;

t.test(
	"tailscaled is restarted on a host with udev and nftables",
	booting(),
	async (t) => {
		const { host, peer, status, gateListens, isActive } =
			await startWithUdev(t);
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
					await becomes(
						t,
						() => isActive(deviceUnit),
						"inactive",
						"it is gone",
					);
					await host.plugTailnet();
					await becomes(t, () => isActive(deviceUnit), "active", "it is back");
					await becomes(t, () => status(gateV4), 401, `${round}: over IPv4`);
					await becomes(t, () => status(gateV6), 401, `${round}: over IPv6`);
					const { length } = stream.all;
					const line = await stream.seen((_, index) => index > length);
					t.equal(line.done, false, `${round}: tokens keep coming`);
				}
				t.equal(await mainPid(host), pid, "the gate was not restarted");
				// One that is back at once may not have been missed.
				await host.unplugTailnet();
				await becomes(
					t,
					async () =>
						(await host.journal("llamagate-listen")).includes(
							"tailscale0 has lost addresses; their streams have 30 s",
						),
					true,
					"an interface may be away for so long",
				);
				await host.plugTailnet();
				await becomes(t, () => status(gateV4), 401, "it serves again");
			},
		);

		await host.write(...shortGrace);
		await host.must("systemctl", "daemon-reload");
		await host.must("systemctl", "restart", "llamagate-listen");

		await t.test(
			"of an interface that stays away the streams are given up; when it is back nothing has to start",
			async (t) => {
				const stream = startStream(peer, gateV4, key);
				await stream.seen((_, index) => index === 1);
				const pid = await mainPid(host);
				await host.unplugTailnet();
				await becomes(
					t,
					async () =>
						(await mainPid(host)) !== pid &&
						(await isActive("llamagate.service")) === "active",
					true,
					"another gate waits",
				);
				const second = await mainPid(host);
				t.strictSame(await gateListens(), [gateV4, gateV6], "at its sockets");
				t.equal(await hasTable(host, "llamagate"), true, "which are guarded");
				await host.plugTailnet();
				await becomes(t, () => status(gateV4), 401, "it serves again");
				t.equal(await mainPid(host), second, "it is the same");
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
				await becomes(
					t,
					async () => (await heldTable(host)) !== undefined,
					true,
					"held",
				);
				await host.must("systemctl", "restart", "llamagate-listen");
				const second = await ask(neighbour, gateV6, { key });
				t.equal(second.curlExit, curlExits.refused, "over IPv6, too");
				await becomes(
					t,
					async () => (await heldTable(host)) !== undefined,
					true,
					"held",
				);
			},
		);

		await t.test(
			"rules that the owner saves with the follower's own load again while it runs",
			async (t) => {
				const saved = await heldTable(host);
				await host.sh(`nft add table inet mine
					{ echo flush ruleset; nft list ruleset; } >/etc/nftables.conf
					nft flush ruleset`);
				await becomes(
					t,
					async () => ![undefined, saved].includes(await heldTable(host)),
					true,
					"it has another name, and nothing of the one before is left",
				);
				await host.must("nft", "-f", "/etc/nftables.conf");
				t.equal(await hasTable(host, "mine"), true, "the owner's are back");
				t.not(await heldTable(host), saved, "a copy went with its nft");
				const { curlExit } = await ask(neighbour, gateV4, { key });
				t.equal(curlExit, curlExits.refused, "the LAN is turned away");
				t.equal(await status(gateV4), 401, "a peer is not");
				await host.sh("nft delete table inet mine; rm /etc/nftables.conf");
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
				stream.end();
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

/** The one table that belongs to a process of the follower's; none where there is not just one. */
async function heldTable(host: BootedHost): Promise<string | undefined> {
	const tables = await host.must("nft", "list", "tables", "inet");
	const [held, ...others] = tables.match(/llamagate_held\w*/g) ?? [];
	return others.length === 0 ? held : undefined;
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

import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { bootHost, booting } from "../support/bootedHost.ts";
import { eventually, testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	curlExits,
	gateV4,
	gateV6,
	type Namespace,
	ollama,
	startStream,
} from "../support/namespaces.ts";
import { shortGrace } from "../support/restarts.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";

// The tests of a host follow its life, and some end with it being booted anew.

const key = testKeys.user;
t.test(
	"a host whose tailnet comes late, goes, and comes back",
	booting(),
	async (t) => {
		const [file, content] = shortGrace;
		const host = await bootHost(t, {
			async install(root) {
				await mkdir(path.join(root, path.dirname(file)));
				await writeFile(path.join(root, file), content);
			},
		});
		/** Who listens for connections on the gate's port. */
		const listeners = async () =>
			(await host.network.listeners()).filter((at) => at.endsWith(":11434"));
		const gateListens = async () =>
			(await listeners()).filter((at) => at !== ollama);
		const status = async (from: Namespace, to: string, key?: string) =>
			(await ask(from, to, key === undefined ? {} : { key })).status;
		const isActive = async (unit: string) =>
			(await host.run("systemctl", "is-active", unit)).stdout.trim();
		const onLocalSocket = (user: string) =>
			host.run(
				...["runuser", "-u", user, "--", "curl", "--silent"],
				...["--output", "/dev/null", "--write-out", "%{http_code}"],
				...["--unix-socket", "/run/llamagate-local/gate.sock"],
				"http://localhost/api/tags",
			);

		await t.test(
			"without tailscale0 the gate is up and listens to nobody but root of its host",
			async (t) => {
				t.equal(await isActive("llamagate.service"), "active");
				t.strictSame(await listeners(), [ollama]);
				t.equal((await onLocalSocket("root")).stdout, "401", "root is heard");
				const other = await onLocalSocket("ollama");
				t.equal(other.code, curlExits.refused, "nobody else is");
			},
		);

		let peer = await host.plugTailnet();
		await t.test(
			"tailscale0 comes long after the boot, and a peer is asked for a key",
			async (t) => {
				await becomes(t, () => status(peer, gateV4), 401, "over IPv4");
				t.equal(await status(peer, gateV6), 401, "over IPv6");
				t.strictSame(await gateListens(), [gateV4, gateV6]);
			},
		);

		await t.test(
			"with a key a peer gets a stream, line by line as it is made",
			async (t) => {
				// The stand-in would go on for hours: what comes, comes before its end.
				const stream = startStream(peer, gateV4, key);
				const line = await stream.seen((_, index) => index === 3);
				t.match(line, { model: "qwen3:8b", done: false });
			},
		);

		const neighbour = await host.plugLan();
		await t.test(
			"a LAN neighbour that routes the tailnet's addresses here gets no handshake, whatever source it claims",
			async (t) => {
				const claimed = "100.101.102.106";
				await neighbour.ip(`addr add ${claimed}/32 dev eth0`);
				// So that answers to it would find their way.
				await host.network.ip(
					`route add ${claimed}/32 via ${addresses.lanNeighbour.v4}`,
				);
				const opened = await passiveOpens(host.network);
				for (const [to, source] of [
					[gateV4, addresses.lanNeighbour.v4],
					[gateV4, claimed],
					[gateV6, addresses.lanNeighbour.v6],
					[`${addresses.lanServer.v4}:11434`, addresses.lanNeighbour.v4],
				] as const) {
					const { curlExit } = await ask(neighbour, to, { key, source });
					t.equal(curlExit, curlExits.refused, `${source} to ${to}`);
				}
				t.equal(await passiveOpens(host.network), opened, "no handshake");
			},
		);

		await t.test(
			"tailscaled's own rules change nothing for a peer",
			async (t) => {
				await replayTailscaledRules(host);
				t.equal(await status(peer, gateV4), 401);
				t.equal(await status(peer, gateV4, key), 200);
				t.equal(await status(peer, gateV6, key), 200);
			},
		);

		await t.test(
			"tailscale0 vanishes under a stream, and the gate lets go of the stream without waiting for it",
			async (t) => {
				const stream = startStream(peer, gateV4, key);
				await stream.seen((_, index) => index === 1);
				const before = await mainPid();
				await host.unplugTailnet();
				await becomes(
					t,
					async () =>
						(await mainPid()) !== before &&
						(await isActive("llamagate.service")) === "active",
					true,
					"another gate serves",
				);
				const said = await host.journal("llamagate.service");
				t.notOk(
					said.some((line) => line.includes("timed out")),
					"systemd had to kill nothing",
				);
				t.equal((await onLocalSocket("root")).stdout, "401", "it is up again");
				t.strictSame(
					await gateListens(),
					[gateV4, gateV6],
					"and has the sockets for when tailscale0 is back",
				);
			},
		);

		await t.test(
			"tailscale0 comes back with another address, and is served there alone",
			async (t) => {
				const moved = { v4: "100.101.102.110", v6: "fd7a:115c:a1e0::110" };
				peer = await host.plugTailnet(moved);
				const there = `${moved.v4}:11434`;
				await becomes(t, () => status(peer, there), 401, "the new address");
				t.equal(await status(peer, there, key), 200);
				t.strictSame(
					await gateListens(),
					[there, `[${moved.v6}]:11434`],
					"the old one is given up",
				);
			},
		);

		await t.test(
			"an address that is taken away is given up, and the other one served on",
			async (t) => {
				const v4 = "100.101.102.110:11434";
				await host.network.ip("addr del fd7a:115c:a1e0::110/64 dev tailscale0");
				await becomes(t, gateListens, [v4], "IPv4 alone");
				await becomes(t, () => status(peer, v4, key), 200, "and served");
			},
		);

		await host.unplugTailnet();
		await t.test(
			"an Ollama that has the port on all addresses keeps the gate out, and once it is back on loopback the gate comes by itself",
			async (t) => {
				const dropIn =
					"/etc/systemd/system/ollama.service.d/override.conf" as const;
				await host.write(
					dropIn,
					"[Service]\nEnvironment=OLLAMA_HOST=0.0.0.0:11434\n",
				);
				await host.must("systemctl", "daemon-reload");
				await host.must("systemctl", "stop", "llamagate.socket");
				await host.must("systemctl", "restart", "ollama");
				await becomes(t, listeners, ["*:11434"], "Ollama has the port");
				peer = await host.plugTailnet();
				await host.run("systemctl", "start", "llamagate.socket");
				await eventually(
					async () => (await isActive("llamagate.socket")) === "failed",
				);
				t.equal(
					await status(peer, gateV4),
					200,
					"which is how bad it is: Ollama itself answers, without a key",
				);

				await host.must("rm", dropIn);
				await host.must("systemctl", "daemon-reload");
				await host.must("systemctl", "restart", "ollama");
				await becomes(t, () => status(peer, gateV4), 401, "the gate is back");
				t.strictSame(await listeners(), [gateV4, ollama, gateV6].sort());
			},
		);

		await t.test(
			"after a reboot with tailscale0 there before everything else a peer is served",
			async (t) => {
				await host.reboot();
				await becomes(t, () => status(peer, gateV4), 401, "a key is needed");
				t.equal(await status(peer, gateV4, key), 200);
			},
		);

		await t.test(
			"after a reboot with tailscale0 coming later a peer is served",
			async (t) => {
				await host.reboot({ replug: false });
				t.equal(await isActive("llamagate.service"), "active");
				t.strictSame(await gateListens(), []);
				peer = await host.plugTailnet();
				await becomes(t, () => status(peer, gateV4), 401, "a key is needed");
				t.equal(await status(peer, gateV4, key), 200);
			},
		);

		async function mainPid(): Promise<string> {
			const value = await host.must(
				...["systemctl", "show", "--property=MainPID", "--value"],
				"llamagate.service",
			);
			return value.trim();
		}
	},
);

/** How many TCP connections a host has accepted so far (RFC 4022, tcpPassiveOpens). */
async function passiveOpens(of: Namespace): Promise<number> {
	const { stdout } = await of.run("cat", "/proc/net/snmp");
	const [names = [], values = []] = stdout
		.split("\n")
		.filter((line) => line.startsWith("Tcp: "))
		.map((line) => line.split(" "));
	return Number(values[names.indexOf("PassiveOpens")]);
}

import t from "tap";
import { booting } from "../support/bootedHost.ts";
import { asNobody, evidenceOf, examine, statesOf } from "../support/doctor.ts";
import { lan, lockHost } from "../support/lockedHost.ts";
import { probePort } from "../support/setupHost.ts";

t.test("whether UFW is in force on a booted host", booting(), async (t) => {
	const { host, neighbour, listen, mend, stateOf } = await lockHost(t);
	const one = (id: string) => examine(host, [id]);

	await t.test("as setup has left it", async (t) => {
		t.strictSame(statesOf(await examine(host, ["firewall"])), {
			"firewall.active": "ok",
			"firewall.default": "ok",
			"firewall.ollama-port": "ok",
			"firewall.order": "ok",
			"firewall.boot": "ok",
			"firewall.web-ports": "ok",
			"firewall.listeners": "ok",
			"firewall.docker": "absent",
			"firewall.tailnet": "info",
			"firewall.forged-source": "ok",
			"firewall.ssh": "info",
		});
		const found = await examine(host, ["firewall"], asNobody);
		t.equal(statesOf(found)["firewall.boot"], "ok", "needs no root");
		for (const [id, state] of Object.entries(statesOf(found)))
			if (id !== "firewall.boot") {
				t.equal(state, "unknown", id);
				t.match(evidenceOf(found, id), /only root/, id);
			}
	});

	await t.test("a rule that opens Ollama's port", async (t) => {
		const id = "firewall.ollama-port";
		await host.must("ufw", "prepend", "allow", "11434/tcp");
		const found = await one(id);
		t.equal(statesOf(found)[id], "high");
		t.match(evidenceOf(found, id), /on eth0: iptables .*--dport 11434/);
		t.match(evidenceOf(found, id), /on eth1: ip6tables .*--dport 11434/);
		const end = await listen(lan, 11434);
		t.equal(await probePort(neighbour, lan, 11434), "open", "for real");
		t.equal(await stateOf(id), "critical", "and something listens");
		await mend(t, found, id);
		t.equal(await probePort(neighbour, lan, 11434), "filtered");
		await end();

		await host.must(
			...["ip6tables", "-I", "ufw6-user-input", "1", "-p", "tcp"],
			...["--dport", "11434", "-j", "ACCEPT"],
		);
		const byIpv6 = await one(id);
		t.equal(statesOf(byIpv6)[id], "high", "by IPv6 alone");
		t.notMatch(evidenceOf(byIpv6, id), /iptables -A ufw-/);
		await host.must("ufw", "reload");
		t.equal(await stateOf(id), "ok");

		await host.must(
			...["iptables", "-I", "INPUT", "-i", "tailscale0", "-j", "DROP"],
		);
		const shut = await one(id);
		t.equal(statesOf(shut)[id], "warn", "the gate is not reached");
		t.match(evidenceOf(shut, id), /IPv4: the tailnet does not get/);
		await host.must(
			...["iptables", "-D", "INPUT", "-i", "tailscale0", "-j", "DROP"],
		);
		t.equal(await stateOf(id), "ok");
	});

	await t.test("a gate at another port and interface", async (t) => {
		const id = "firewall.ollama-port";
		const follow = (device: string) =>
			host.sh(`mkdir -p /run/systemd/system/llamagate-listen.service.d
					printf '[Service]\nEnvironment=INTERFACE=${device} PORT=11500\n' >/run/systemd/system/llamagate-listen.service.d/place.conf
					systemctl daemon-reload`);
		await host.network.ip(
			"link add tailscale1 type veth peer name elsewhere",
			"addr add 100.101.102.120/32 dev tailscale1",
			"link set elsewhere up",
			"link set tailscale1 up",
		);
		await follow("tailscale1");
		const shut = await one(id);
		t.equal(statesOf(shut)[id], "warn");
		t.match(evidenceOf(shut, id), /tailscale1 is shut for port 11500/);
		await mend(t, shut, id);
		// No tailnet is on this one.
		await follow("eth0");
		await host.must("ufw", "allow", "11500/tcp");
		const open = await one(id);
		t.equal(statesOf(open)[id], "high");
		t.match(evidenceOf(open, id), /11500 on eth0: iptables/);
		await mend(t, open, id);
		await host.network.ip("link del tailscale1");
		await host.sh(`rm -r /run/systemd/system/llamagate-listen.service.d
				systemctl daemon-reload
				ufw delete allow in on tailscale1 to any port 11500 proto tcp`);
	});

	await t.test("rules ahead of UFW's, and behind them", async (t) => {
		const id = "firewall.order";
		const end = await listen("0.0.0.0", 9999);
		await host.must("ufw", "delete", "allow", "22/tcp");
		for (const [rule, severity] of [
			["-I INPUT 1 -s 192.168.77.0/24 -j ACCEPT", "high"],
			["-I INPUT 1 -j ACCEPT", "critical"],
			["-I INPUT 1 -i eth0 -p tcp --dport 9999 -j ACCEPT", "high"],
			[
				"-A INPUT -s 192.168.77.0/24 -m comment --comment 'my \"LAN\"' -j ACCEPT",
				"high",
			],
		] as const) {
			await host.sh(`iptables ${rule}`);
			const found = await one(id);
			t.equal(statesOf(found)[id], severity, rule);
			t.equal(await probePort(neighbour, lan, 9999), "open", "for real");
			await mend(t, found, id);
			t.equal(await probePort(neighbour, lan, 22), "open", "SSH stays");
		}
		t.match(await host.sh("ufw show added"), /allow 22\/tcp$/m);
		for (const device of ["eth0", "eth1"])
			await host.sh(
				`ufw delete allow in on ${device} from 192.168.77.0/24 to any port 22 proto tcp`,
			);
		// A chain of one's own, with an accept that a drop ahead of it makes useless.
		await host.sh(`iptables -N mine
				iptables -A mine -p tcp --dport 9999 -j DROP
				iptables -A mine -p tcp --dport 9999 -j ACCEPT
				iptables -I INPUT 1 -p tcp -j mine`);
		t.equal(await stateOf(id), "ok", "what is dropped before is not let in");
		await host.sh(
			"iptables -D INPUT -p tcp -j mine; iptables -F mine; iptables -X mine",
		);

		const table = (policy: string, rule: string) =>
			host.sh(`nft add table inet other
					nft 'add chain inet other in { type filter hook input priority -100; policy ${policy}; }'
					nft add rule inet other in '${rule}'`);
		await table("accept", "accept");
		t.equal(
			await stateOf(id),
			"ok",
			"an accept in another table lets nobody in",
		);
		t.equal(await probePort(neighbour, lan, 9999), "filtered", "for real");
		await host.must("nft", "delete", "table", "inet", "other");
		t.equal(await probePort(neighbour, lan, 22), "open");
		await table("accept", "iifname { eth0, eth1 } tcp dport 22 drop");
		t.equal(
			await stateOf("firewall.ssh"),
			"ok",
			"a drop in another table shuts",
		);
		t.equal(await probePort(neighbour, lan, 22), "filtered", "for real");
		await host.must("nft", "delete", "table", "inet", "other");
		t.equal(await stateOf("firewall.ssh"), "info");
		await end();
	});

	await t.test("UFW that is not in force", async (t) => {
		const id = "firewall.active";
		await host.sh("iptables -F INPUT");
		const shut = await one(id);
		t.equal(statesOf(shut)[id], "warn", "its policy still drops");
		await host.sh("iptables -P INPUT ACCEPT");
		const open = await examine(host, [id, "firewall.default"]);
		t.strictSame(statesOf(open), {
			[id]: "high",
			"firewall.default": "high",
		});
		t.match(evidenceOf(open, "firewall.default"), /INPUT accepts what is left/);
		const end = await listen("0.0.0.0", 9999);
		t.equal(await probePort(neighbour, lan, 9999), "open", "for real");
		await mend(t, open, id);
		t.equal(await stateOf("firewall.default"), "ok");
		t.equal(await probePort(neighbour, lan, 9999), "filtered");
		await end();
		// tailscaled would do so at its next start.
		await host.sh("iptables -I INPUT -j ts-input");

		await host.must("ufw", "disable");
		const off = await examine(host, [id, "firewall.boot"]);
		t.strictSame(statesOf(off), {
			[id]: "high",
			"firewall.boot": "high",
		});
		await mend(t, off, id);
		t.equal(await stateOf("firewall.boot"), "ok");
	});

	await t.test(
		"UFW that lets in by default, or is gone after a boot",
		async (t) => {
			await host.must("ufw", "default", "allow", "incoming");
			const open = await one("firewall.default");
			t.equal(statesOf(open)["firewall.default"], "high");
			await mend(t, open, "firewall.default");

			await host.must("systemctl", "disable", "ufw.service");
			await host.must("systemctl", "enable", "--runtime", "ufw.service");
			await mend(t, await one("firewall.boot"), "firewall.boot");
			await host.must("systemctl", "mask", "ufw.service");
			await mend(t, await one("firewall.boot"), "firewall.boot");
			await host.sh("sed -i 's/^ENABLED=.*/ENABLED=no/' /etc/ufw/ufw.conf");
			const off = await one("firewall.boot");
			t.equal(statesOf(off)["firewall.boot"], "high");
			await mend(t, off, "firewall.boot");
		},
	);

	await t.test("SSH that is shut, and rules that cannot be read", async (t) => {
		await host.must("ufw", "delete", "allow", "22/tcp");
		t.equal(await stateOf("firewall.ssh"), "ok");
		t.equal(await probePort(neighbour, lan, 22), "filtered");
		await host.must("ufw", "allow", "22/tcp");
		t.equal(await stateOf("firewall.ssh"), "info");

		await host.sh("mv /usr/sbin/iptables /usr/sbin/iptables.away");
		const found = await examine(host, ["firewall"]);
		for (const [id, state] of Object.entries(statesOf(found)))
			if (id !== "firewall.boot") t.equal(state, "unknown", id);
		t.match(evidenceOf(found, "firewall.active"), /install iptables/);
		await host.sh("mv /usr/sbin/iptables.away /usr/sbin/iptables");
		// nftables' own rules can shut, which is no harm, and lead elsewhere.
		await host.sh("mv /usr/sbin/nft /usr/sbin/nft.away");
		t.match(statesOf(await examine(host, ["firewall"])), {
			"firewall.active": "ok",
			"firewall.docker": "unknown",
		});
		await host.sh("mv /usr/sbin/nft.away /usr/sbin/nft");
	});
});

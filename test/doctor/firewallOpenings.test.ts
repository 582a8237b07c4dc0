import t, { type Test } from "tap";
import { takeOut } from "../../src/host/firewall/fixes.ts";
import { parseIptables } from "../../src/netfilter/iptables.ts";
import { type BootedHost, booting } from "../support/bootedHost.ts";
import { commandOf, evidenceOf, examine, statesOf } from "../support/doctor.ts";
import { lan, lockHost } from "../support/lockedHost.ts";
import {
	addresses,
	becomes,
	connect,
	listener,
	makeNamespace,
	type Namespace,
} from "../support/namespaces.ts";
import { probePort } from "../support/setupHost.ts";

t.test("what gets past UFW on a booted host", booting(), async (t) => {
	const { host, neighbour, peer, listen, mend, stateOf } = await lockHost(t);
	const one = (id: string) => examine(host, [id]);

	await t.test("ports that UFW opens", async (t) => {
		await host.must("ufw", "prepend", "allow", "8080/tcp");
		const web = await one("firewall.web-ports");
		t.equal(statesOf(web)["firewall.web-ports"], "warn");
		await mend(t, web, "firewall.web-ports");

		const id = "firewall.listeners";
		const ends = [
			await listen("0.0.0.0", 5432),
			await listen("::", 9999),
			await hold(host, "tailscaled", ["udp", "0.0.0.0", 7000]),
			// UFW lets these in on every host, for their own ends.
			await hold(host, "dhclient", ["udp", "0.0.0.0", 68], "root"),
			await hold(host, "avahi-daemon", ["udp", "224.0.0.251", 5353]),
		];
		t.match(await host.must("ss", "-Hlnu"), /0\.0\.0\.0:41641/);
		t.equal(await stateOf(id), "ok", "listening alone is nothing");
		await host.must(
			"ufw",
			"allow",
			"from",
			"192.168.77.0/24",
			"to",
			"any",
			"port",
			"9998:9999",
			"proto",
			"tcp",
		);
		const some = await one(id);
		t.equal(statesOf(some)[id], "warn", "some of the LAN");
		t.equal(await probePort(neighbour, lan, 9999), "open", "for real");
		await host.must("ufw", "allow", "5432/tcp");
		// The neighbour has this rule for SSH, and the ports come with it.
		await host.must("ufw", "allow", "from", "192.168.77.0/24");
		await host.must("ufw", "delete", "allow", "22/tcp");
		await host.must("ufw", "deny", "9999/tcp");
		await host.must("ufw", "allow", "7000/udp");
		const found = await one(id);
		t.equal(statesOf(found)[id], "high", "a database");
		t.match(
			evidenceOf(found, id),
			/0\.0\.0\.0:5432 .*PostgreSQL's: UFW lets in/,
		);
		t.match(
			evidenceOf(found, id),
			/0\.0\.0\.0:7000\/udp \(tailscaled\): UFW lets in/,
		);
		t.notMatch(evidenceOf(found, id), /41641/, "the real one's is meant");
		t.equal(await probePort(neighbour, lan, 5432), "open", "for real");
		await mend(t, found, id);
		for (const port of [5432, 9999])
			t.equal(await probePort(neighbour, lan, port), "filtered");
		t.equal(await probePort(neighbour, lan, 22), "open", "SSH stays");
		await host.sh(`ufw allow 22/tcp
				ufw delete deny 9999/tcp
				ufw delete allow from 192.168.77.0/24`);
		for (const end of ends) await end();
	});

	await t.test("a program beside sshd that calls itself so", async (t) => {
		const id = "firewall.listeners";
		await host.write(
			"/etc/ssh/sshd_config.d/00-where.conf",
			`ListenAddress 0.0.0.0:22\nListenAddress ${lan}:3000\n`,
		);
		await host.sh(`systemctl reload ssh
				until ss -Hltn sport = 3000 | grep -q .; do sleep 0.05; done`);
		await host.must("ufw", "prepend", "allow", "3000/tcp");
		t.strictSame(statesOf(await examine(host, [id, "firewall.web-ports"])), {
			[id]: "ok",
			"firewall.web-ports": "ok",
		});
		const end = await hold(host, "sshd", ["tcp", "203.0.113.10", 3000]);
		const found = await examine(host, [id, "firewall.web-ports"]);
		t.strictSame(statesOf(found), {
			[id]: "high",
			"firewall.web-ports": "high",
		});
		t.match(
			evidenceOf(found, id),
			/203\.0\.113\.10:3000 \(sshd\).*UFW lets in/,
		);
		t.notMatch(evidenceOf(found, id), `${lan}:3000`, "sshd's own is meant");
		await end();
		await host.sh(`rm /etc/ssh/sshd_config.d/00-where.conf
				systemctl reload ssh
				ufw delete allow 3000/tcp`);
	});

	await t.test(
		"a port that leads around UFW, as Docker makes it",
		async (t) => {
			const id = "firewall.docker";
			const container = await publishLikeDocker(t, host);
			const port = (from: Namespace) => probePort(from, lan, 3000);
			t.equal(await port(neighbour), "open", "though UFW denies 3000");
			const found = await one(id);
			t.equal(statesOf(found)[id], "high");
			t.match(
				evidenceOf(found, id),
				/on eth0: port 3000 leads ahead of UFW to 172\.17\.0\.2:8080: iptables -t nat -A DOCKER/,
			);
			// Docker's own way to say no.
			const drop =
				"DOCKER-USER -i eth+ -p tcp -m conntrack --ctorigdstport 3000 -j DROP";
			await host.sh(`iptables -I ${drop}`);
			t.equal(await port(neighbour), "filtered");
			t.equal(await stateOf(id), "ok", "FORWARD drops it");
			await host.sh(`iptables -D ${drop}`);
			t.equal(await port(neighbour), "open");
			await host.sh(commandOf(found, id));
			t.equal(await port(neighbour), "filtered", "mended");
			t.equal(await stateOf(id), "absent");

			// On 127.0.0.1 alone, as Docker did before version 28.
			await host.sh(
				"iptables -t nat -A DOCKER -d 127.0.0.1/32 ! -i docker0 -p tcp -m tcp --dport 3000 -j DNAT --to-destination 172.17.0.2:8080",
			);
			await neighbour.ip(
				"route del table local local 127.0.0.1",
				"route del table local local 127.0.0.0/8",
				`route add 127.0.0.1/32 via ${lan}`,
			);
			/** How many connections of the neighbour's have got as far as the container. */
			const begun = async () => {
				await neighbour.run("curl", "-s", "-m", "1", "http://127.0.0.1:3000");
				const { stdout } = await container.run(
					...["ss", "-Htn", "state", "syn-recv"],
				);
				return stdout
					.split("\n")
					.filter((line) => line.includes(addresses.lanNeighbour.v4)).length;
			};
			t.equal(await begun(), 1, "a neighbour sends 127.0.0.1 here");
			const local = await one(id);
			t.equal(statesOf(local)[id], "warn");
			t.match(
				evidenceOf(local, id),
				/port 3000 of 127\.0\.0\.1 [\s\S]*a neighbour/,
			);
			t.match(commandOf(local, id), /^upgrade Docker/);
			// As it does since.
			await host.sh(
				"iptables -t raw -A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp -m tcp --dport 3000 -j DROP",
			);
			t.equal(await begun(), 1, "no further one");
			t.equal(await stateOf(id), "ok");
		},
	);

	await t.test("what the whole tailnet reaches", async (t) => {
		const id = "firewall.tailnet";
		const end = await listen("0.0.0.0", 6379);
		const endFake = await hold(host, "tailscaled", ["tcp", "0.0.0.0", 7777]);
		const found = await one(id);
		await endFake();
		t.equal(statesOf(found)[id], "warn");
		t.match(
			evidenceOf(found, id),
			/reaches .*22 sshd.*6379 python3.*7777 tailscaled/,
		);
		t.match(evidenceOf(found, id), /0\.0\.0\.0:6379 .*Redis's/);
		t.notMatch(evidenceOf(found, id), /11434/, "the gate is meant");
		t.equal(
			await probePort(peer, addresses.server.v4, 6379),
			"open",
			"for real, though UFW has no rule for it",
		);
		await end();
		const again = await listen("127.0.0.1", 6379);
		t.equal(await stateOf(id), "info", "on loopback it is not reached");
		await again();
	});

	await t.test("a neighbour that claims a tailnet address", async (t) => {
		const id = "firewall.forged-source";
		const [forged, leftOut] = ["100.99.1.2", "100.115.92.5"] as const;
		for (const address of [forged, leftOut]) {
			await neighbour.ip(`addr add ${address}/32 dev eth0`);
			await host.network.ip(`route add ${address}/32 dev eth0`);
		}
		t.equal(await stateOf(id), "ok", "tailscaled drops it");
		const end = await listen("0.0.0.0", 9999);
		await host.must("ufw", "allow", "from", "100.64.0.0/10");
		t.equal(await stateOf(id), "high", "but for ChromeOS's");
		t.equal(await probePort(neighbour, lan, 9999, forged), "filtered");
		t.equal(await probePort(neighbour, lan, 9999, leftOut), "open");
		await host.sh(
			"iptables -D ts-input -s 100.64.0.0/10 ! -i tailscale0 -j DROP",
		);
		const found = await one(id);
		t.equal(statesOf(found)[id], "high");
		t.equal(await probePort(neighbour, lan, 9999, forged), "open", "for real");
		await host.sh(`${commandOf(found, id)} --yes`);
		const without = await one(id);
		t.equal(statesOf(without)[id], "info", "and says what holds");
		t.match(
			evidenceOf(without, id),
			/netfilter-mode=off[\s\S]*held to tailscale0/,
		);
		t.equal(await probePort(neighbour, lan, 9999, forged), "filtered");
		await end();
	});
});

t.test(
	"a rule by which somebody gets in by SSH is not just taken out",
	async (t) => {
		const fix = (own: string, ufw: string) => {
			const baseChains = parseIptables(
				`-P INPUT DROP\n-N ufw-before-input\n-N ufw-user-input\n-A INPUT ${own} -j ACCEPT\n${ufw}`,
				...(["iptables", "filter", "ipv4"] as const),
			);
			const firewall = {
				filter: {
					...{ baseChains, outside: ["eth0"], unread: [] },
					families: ["ipv4" as const],
				},
				...{ sshPorts: [22], ufwRules: [], tailnet: "tailscale0" },
				gatePort: 11434,
			};
			const [rule] = baseChains[0]?.rules ?? [];
			return rule && takeOut(firewall, [{ rule, path: ["INPUT"] }]);
		};
		const hooks =
			"-A INPUT -j ufw-before-input\n-A ufw-before-input -j ufw-user-input\n";
		const ssh = "-A ufw-user-input -p tcp -m tcp --dport 22 -j ACCEPT";
		t.equal(
			fix("-i eth0", hooks + ssh),
			"sudo iptables -D INPUT -i eth0 -j ACCEPT",
			"UFW lets in who gets in now",
		);
		t.match(
			fix("-s 10.0.0.0/8", hooks),
			/prepend allow in on eth0 from 10\.0\.0\.0\/8 to any port 22 proto tcp && .*sudo iptables -D/,
		);
		t.match(
			fix("-m set --match-set friends src", hooks),
			/^once UFW itself lets you in by SSH .*: sudo iptables -D/,
			"UFW has no words for those",
		);
		t.equal(fix("-i eth0", ""), undefined, "UFW has nothing to say");
	},
);

/** Starts a program that calls itself as it likes. @returns what ends it */
async function hold(
	host: BootedHost,
	name: string,
	place: readonly ["tcp" | "udp", address: string, port: number],
	user = "nobody",
): Promise<() => Promise<unknown>> {
	const [protocol, address, port] = place;
	const unit = `held-${port}`;
	await host.must(
		...["systemd-run", "--quiet", "--collect", `--unit=${unit}`],
		...[`--property=User=${user}`, "python3", "-c"],
		`import socket, time
open("/proc/self/comm", "w").write("${name}")
held = socket.socket(type=socket.SOCK_${protocol === "tcp" ? "STREAM" : "DGRAM"})
held.bind(("${address}", ${port}))
${protocol === "tcp" ? "held.listen()" : ""}
time.sleep(3600)`,
	);
	await host.sh(
		`until ss -Hlntu src ${address}:${port} | grep -q .; do systemctl is-active --quiet ${unit}; sleep 0.05; done`,
	);
	return () => host.run("systemctl", "stop", unit);
}

/** A container at 172.17.0.2:8080, and the rules by which Docker publishes it on port 3000. */
async function publishLikeDocker(
	t: Test,
	host: BootedHost,
): Promise<Namespace> {
	const container = await makeNamespace(t);
	await connect(host.network, container, "veth0");
	await host.network.ip(
		"link add docker0 type bridge",
		"link set docker0 up",
		"addr add 172.17.0.1/16 dev docker0",
		"link set veth0 master docker0",
	);
	await container.ip(
		"addr add 172.17.0.2/16 dev veth0",
		"route add default via 172.17.0.1",
	);
	container.start(...listener("0.0.0.0", 8080));
	await becomes(
		t,
		async () => (await container.listeners()).includes("0.0.0.0:8080"),
		true,
		"the container listens",
	);
	await host.sh(`echo 1 >/proc/sys/net/ipv4/ip_forward
		iptables -t nat -N DOCKER
		iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
		iptables -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 3000 -j DNAT --to-destination 172.17.0.2:8080
		iptables -N DOCKER
		iptables -N DOCKER-USER
		iptables -I FORWARD -o docker0 -j DOCKER
		iptables -I FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
		iptables -I FORWARD -i docker0 ! -o docker0 -j ACCEPT
		iptables -I FORWARD -j DOCKER-USER
		iptables -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT`);
	return container;
}

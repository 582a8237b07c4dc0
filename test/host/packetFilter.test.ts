import t from "tap";
import { translations, wayIn } from "../../src/netfilter/evaluate.ts";
import { parseIptables } from "../../src/netfilter/iptables.ts";
import { chainsOfXt, parseNftables } from "../../src/netfilter/nft.ts";
import type { BaseChain, Packets } from "../../src/netfilter/packetFilter.ts";
import { rangeOf } from "../../src/netfilter/ufwPackets.ts";
import {
	addresses,
	becomes,
	joinLan,
	listener,
	makeNamespace,
	type Namespace,
	network,
} from "../support/namespaces.ts";
import { probePort } from "../support/setupHost.ts";

const packets = (port: number, more: Partial<Packets> = {}): Packets => ({
	...{ family: "ipv4", interfaceIn: "eth0", protocol: "tcp", port },
	from: rangeOf("0.0.0.0/0"),
	...more,
});

const filter = (rules: string, policy = "DROP") =>
	parseIptables(
		`-P INPUT ${policy}\n-N other\n-N inner\n${rules}`,
		"iptables",
		"filter",
		"ipv4",
	);

/** How many of the packets get in by these rules. */
const share = (rules: string, sent: Packets, policy?: string) =>
	wayIn({ baseChains: filter(rules, policy) }, sent).share;

t.test(
	"the first rule that fits decides, in each of iptables' forms",
	async (t) => {
		for (const [rules, port, wanted] of [
			["", 22, "none"],
			["-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", 22, "all"],
			["-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT", 23, "none"],
			["-A INPUT -p tcp -m tcp ! --dport 22 -j ACCEPT", 22, "none"],
			["-A INPUT -p udp -m udp --dport 22 -j ACCEPT", 22, "none"],
			["-A INPUT -p tcp -m multiport --dports 80,90:99 -j ACCEPT", 95, "all"],
			["-A INPUT -i eth+ -j ACCEPT", 22, "all"],
			["-A INPUT ! -i eth0 -j ACCEPT", 22, "none"],
			[
				"-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
				22,
				"none",
			],
			["-A INPUT -m conntrack ! --ctstate INVALID -j ACCEPT", 22, "all"],
			[
				"-A INPUT -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN -j ACCEPT",
				22,
				"all",
			],
			["-A INPUT -m set --match-set friends src -j ACCEPT", 22, "some"],
			["-A INPUT -m mark --mark 0x40000/0xff0000 -j ACCEPT", 22, "none"],
			[
				"-A INPUT -j MARK --set-xmark 0x40000/0xff0000\n-A INPUT -m mark --mark 0x40000/0xff0000 -j ACCEPT",
				22,
				"some",
			],
			["-A INPUT -s 10.0.0.0/8 -j ACCEPT", 22, "some"],
			[
				"-A INPUT -s 10.0.0.0/8 -j DROP\n-A INPUT -s 10.1.0.0/16 -j ACCEPT",
				22,
				"none",
			],
			["-A INPUT -d 224.0.0.251/32 -j ACCEPT", 22, "none"],
			[
				"-A INPUT -j other\n-A INPUT -j ACCEPT\n-A other -j RETURN\n-A other -j DROP",
				22,
				"all",
			],
			["-A INPUT -j other\n-A INPUT -j ACCEPT\n-A other -j DROP", 22, "none"],
			["-A INPUT -g other\n-A INPUT -j ACCEPT\n-A other -j RETURN", 22, "none"],
			[
				"-A INPUT -j other\n-A INPUT -j DROP\n-A other -p tcp -j inner\n-A inner -m tcp -p tcp --dport 22 -j ACCEPT",
				22,
				"all",
			],
			['-A INPUT -m comment --comment "-j ACCEPT \\" -A" -j DROP', 22, "none"],
			["-A INPUT -p tcp -j NFQUEUE --queue-num 0", 22, "some"],
			["-A INPUT -p tcp", 22, "none"],
		] as const)
			t.equal(share(rules, packets(port)), wanted, rules);
		t.equal(share("", packets(22), "ACCEPT"), "all", "the policy is left");
		t.throws(() => filter("Chain INPUT (policy DROP)"), /what is not known/);
	},
);

t.test("what fits some is told by the rule, and by what it fits", async (t) => {
	const { by } = wayIn(
		{
			baseChains: filter(
				"-A INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT",
			),
		},
		packets(80, { port: undefined }),
	);
	t.equal(by.length, 1);
	t.equal(by[0]?.packets.port, 80);
	t.equal(by[0]?.packets.from.join("/"), "10.0.0.0/8");
	t.equal(
		by[0]?.rule?.removal,
		"sudo iptables -D INPUT -s 10.0.0.0/8 -p tcp -m tcp --dport 80 -j ACCEPT",
	);
});

const rule = (...expr: unknown[]) => ({
	rule: { family: "inet", table: "own", chain: "in", handle: 7, expr },
});
const match = (left: unknown, right: unknown, op = "==") => ({
	match: { op, left, right },
});
const dport = { payload: { protocol: "tcp", field: "dport" } };
const own = (policy: string, ...rules: unknown[]): BaseChain[] =>
	parseNftables(
		JSON.stringify({
			nftables: [
				{ metainfo: {} },
				{ table: { family: "inet", name: "own" } },
				{
					chain: {
						...{ family: "inet", table: "own", name: "in", type: "filter" },
						...{ hook: "input", prio: -10, policy },
					},
				},
				...rules,
			],
		}),
		"table inet own { # handle 1\n\tchain in { # handle 2\n\t\ttcp dport 22 accept # handle 7\n\t}\n}\n",
	);

t.test("nftables' rules decide alike", async (t) => {
	const accept = { accept: null };
	for (const [rules, wanted] of [
		[[], "none"],
		[[rule(match(dport, 22), accept)], "all"],
		[[rule(match(dport, { set: [80, { range: [20, 25] }] }), accept)], "all"],
		[[rule(match(dport, 22, "!="), accept)], "none"],
		[[rule(match({ meta: { key: "iifname" } }, "lo"), accept)], "none"],
		[[rule(match({ meta: { key: "nfproto" } }, "ipv6"), accept)], "none"],
		[
			[
				rule(
					match({ ct: { key: "state" } }, ["established", "related"], "in"),
					accept,
				),
			],
			"none",
		],
		[
			[
				rule({
					vmap: {
						key: { ct: { key: "state" } },
						data: {
							set: [
								["established", accept],
								["new", { drop: null }],
							],
						},
					},
				}),
				rule(accept),
			],
			"none",
		],
		[
			[rule({ vmap: { key: { ct: { key: "state" } }, data: "@states" } })],
			"some",
		],
		[
			[
				rule(
					match(
						{ payload: { protocol: "ip", field: "saddr" } },
						{ prefix: { addr: "10.0.0.0", len: 8 } },
					),
					accept,
				),
			],
			"some",
		],
		[
			[
				rule(
					match({ payload: { protocol: "ip", field: "saddr" } }, "@friends"),
					accept,
				),
			],
			"some",
		],
		[
			[
				rule({ limit: { rate: 3 } }, { reject: null }),
				rule({ counter: {} }, accept),
			],
			"some",
		],
	] as const)
		t.equal(
			wayIn({ baseChains: own("drop", ...rules) }, packets(22)).share,
			wanted,
			JSON.stringify(rules),
		);
	const [chain] = own("drop", rule(accept));
	t.equal(chain?.rules[0]?.text, "nft inet own in: tcp dport 22 accept");
	t.equal(
		chain?.rules[0]?.removal,
		"sudo nft delete rule inet own in handle 7",
	);
	t.strictSame(
		[
			...chainsOfXt(
				JSON.stringify({
					nftables: [rule({ xt: { type: "match", name: "set" } })],
				}),
			),
		],
		["inet own in"],
	);
});

t.test(
	"an accept in one base chain decides for no other, and a drop for all",
	async (t) => {
		const ssh = filter("-A INPUT -p tcp -m tcp --dport 22 -j ACCEPT");
		const both =
			(...other: BaseChain[]) =>
			(port: number) =>
				wayIn({ baseChains: [...other, ...ssh] }, packets(port)).share;
		t.equal(both(...own("accept", rule({ accept: null })))(80), "none");
		t.equal(both(...own("accept", rule({ accept: null })))(22), "all");
		t.equal(both(...own("accept", rule({ drop: null })))(22), "none");
		t.equal(both(...own("drop"))(22), "none");
	},
);

t.test("a translated port goes where FORWARD lets it", async (t) => {
	const at = (nat: string, forward: string) =>
		translations(
			{
				baseChains: [
					...parseIptables(
						`-P PREROUTING ACCEPT\n-N DOCKER\n${nat}`,
						"iptables",
						"nat",
						"ipv4",
					),
					...parseIptables(
						`-P INPUT DROP\n-P FORWARD DROP\n${forward}`,
						"iptables",
						"filter",
						"ipv4",
					),
				],
			},
			packets(0, { port: undefined }),
			(address) => address.range() === "loopback",
		).map(({ packets: sent, to, port, share: let_in }) => [
			...[sent.port, to?.toString(), port, let_in],
		]);
	const dnat =
		"-A PREROUTING ! -i docker0 -p tcp -m tcp --dport 3000 -j DNAT --to-destination 172.17.0.2:8080";
	t.strictSame(at(dnat, ""), [[3000, "172.17.0.2", 8080, "none"]]);
	t.strictSame(
		at(
			dnat,
			"-A FORWARD -d 172.17.0.2/32 -o docker0 -p tcp -m tcp --dport 8080 -j ACCEPT",
		),
		[[3000, "172.17.0.2", 8080, "some"]],
	);
	t.strictSame(
		at(
			dnat,
			"-A FORWARD -i eth0 -m conntrack --ctorigdstport 3000 -j DROP\n-A FORWARD -m conntrack --ctstate DNAT -j ACCEPT",
		),
		[[3000, "172.17.0.2", 8080, "none"]],
	);
	t.strictSame(
		at(
			"-A PREROUTING -p tcp -m tcp --dport 81 -j REDIRECT --to-ports 80",
			"-A INPUT -p tcp -m tcp --dport 80 -j ACCEPT",
		),
		[[81, undefined, 80, "all"]],
		"to this host, by INPUT",
	);
	t.strictSame(
		at(
			"-A PREROUTING -p tcp -m tcp --dport 82 -j DNAT --to-destination [fd00::2]:80",
			"-A FORWARD -j ACCEPT",
		),
		[[82, "fd00::2", 80, "all"]],
	);
	t.strictSame(
		at(
			"-A PREROUTING -i lo -p tcp -m tcp --dport 83 -j DNAT --to-destination 127.0.0.1:80",
			"",
		),
		[],
	);
});

/** Runs commands of a shell in a namespace. */
async function sh(namespace: Namespace, script: string): Promise<string> {
	const { code, stdout, stderr } = await namespace.run("sh", "-euc", script);
	if (code !== 0) throw new Error(`${script}: ${stderr}`);
	return stdout;
}

/** What both listings of nft's, one after the other, say. */
function listed(printed: string): BaseChain[] {
	const end = printed.indexOf("\n");
	return parseNftables(printed.slice(0, end), printed.slice(end));
}

t.test(
	"what nft counts or remembers is true of some packets only",
	network(),
	async (t) => {
		const namespace = await makeNamespace(t);
		for (const [statement, after] of [
			["quota over 10 mbytes drop", "accept"],
			["quota until 10 mbytes accept", "drop"],
			["quota name q drop", "accept"],
			["limit rate over 3/minute drop", "accept"],
			["limit name l accept", "drop"],
			["add @seen { ip saddr } accept", "drop"],
			["update @seen { ip saddr limit rate over 3/minute } drop", "accept"],
			["delete @seen { ip saddr } accept", "drop"],
			["meter m { ip saddr limit rate 3/second } accept", "drop"],
			["ct count over 2 drop", "accept"],
			["numgen random mod 2 0 drop", "accept"],
		] as const) {
			const printed = await sh(
				namespace,
				`nft -f - <<'end'
				flush ruleset
				table inet own {
					quota q { over 5 mbytes }
					limit l { rate 5/second }
					set seen { type ipv4_addr; flags dynamic,timeout; timeout 1m; }
					chain in {
						type filter hook input priority 0; policy drop;
						${statement}
						${after}
					}
				}
end
				nft -j list ruleset
				nft -a list ruleset`,
			);
			t.equal(
				wayIn({ baseChains: listed(printed) }, packets(22)).share,
				"some",
				statement,
			);
		}
	},
);

/** Asks in a namespace, where the rules are read as doctor reads them. */
async function inForce(namespace: Namespace, expression: string) {
	const { stdout, stderr } = await namespace.run(
		...[process.execPath, "--input-type=module", "--eval"],
		`import { kernelFilter } from "./src/system/kernelFilter.ts";
		import { wayIn } from "./src/netfilter/evaluate.ts";
		import { rangeOf } from "./src/netfilter/ufwPackets.ts";
		const filter = await kernelFilter();
		const packets = (port) => ({ family: "ipv4", interfaceIn: "eth0", protocol: "tcp", port, from: rangeOf("0.0.0.0/0") });
		console.log(JSON.stringify(${expression}));`,
	);
	if (stdout === "") throw new Error(stderr);
	return JSON.parse(stdout) as unknown;
}

t.test(
	"a mark counts that another table or chain has set",
	network(),
	async (t) => {
		const host = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinLan(host, neighbour);
		host.start(...listener("0.0.0.0", 9999));
		await becomes(
			t,
			async () => (await host.listeners()).includes("0.0.0.0:9999"),
			true,
			"something listens",
		);
		for (const [rules, wanted] of [
			["iptables -t mangle -A PREROUTING -i eth0 -j MARK --set-mark 1", "open"],
			[
				`iptables -t mangle -A PREROUTING -i tailscale0 -j MARK --set-mark 1
				iptables -t mangle -A PREROUTING -p tcp --dport 9998 -j MARK --set-mark 1`,
				"filtered",
			],
			[
				`iptables -t raw -A PREROUTING -p tcp --dport 9999 -j MARK --set-mark 1
				iptables -t mangle -A PREROUTING -j CONNMARK --save-mark
				iptables -t mangle -A PREROUTING -j MARK --set-mark 0
				iptables -t mangle -A INPUT -j CONNMARK --restore-mark`,
				"open",
			],
			[
				`iptables -t mangle -A PREROUTING -j CONNMARK --set-mark 1
				iptables -A INPUT -m connmark --mark 1 -j ACCEPT`,
				"open",
			],
			[
				`nft add table inet own
				nft 'add chain inet own pre { type filter hook prerouting priority -10; }'
				nft add rule inet own pre tcp dport 9999 meta mark set 1 accept`,
				"open",
			],
		] as const) {
			await sh(
				host,
				`nft flush ruleset
				iptables -P INPUT DROP
				${rules}
				iptables -A INPUT -m mark --mark 1 -j ACCEPT`,
			);
			const { v4 } = addresses.lanServer;
			t.equal(await probePort(neighbour, v4, 9999), wanted, rules);
			t.equal(
				await inForce(host, "wayIn(filter, packets(9999)).share"),
				wanted === "open" ? "some" : "none",
				rules,
			);
		}
	},
);

t.test(
	"a translation to what a map says may lead anywhere",
	network(),
	async (t) => {
		const namespace = await makeNamespace(t);
		const ways = (baseChains: BaseChain[]) =>
			translations({ baseChains }, packets(81), () => false).map(
				({ to, share }) => [to, share],
			);
		for (const [rule, forward, wanted, input = "drop"] of [
			["dnat ip to tcp dport map { 81 : 172.17.0.2 }", "accept", "some"],
			["dnat ip to tcp dport map @places", "accept", "some"],
			["dnat ip to 172.17.0.2-172.17.0.9", "accept", "some"],
			["tcp dport vmap @ways", "accept", "some"],
			["dnat ip to tcp dport map @places", "drop", "none"],
			// One of them may be this host's own.
			["dnat ip to tcp dport map @places", "drop", "some", "accept"],
		] as const) {
			const printed = await sh(
				namespace,
				`nft -f - <<'end'
				flush ruleset
				table inet own {
					map places { type inet_service : ipv4_addr; }
					map ways { type inet_service : verdict; flags timeout; }
					chain pre {
						type nat hook prerouting priority -100; policy accept;
						${rule}
					}
					chain forward {
						type filter hook forward priority 0; policy ${forward};
					}
					chain in {
						type filter hook input priority 0; policy ${input};
					}
				}
end
				nft -j list ruleset
				nft -a list ruleset`,
			);
			t.strictSame(
				ways(listed(printed)),
				[["unknown", wanted]],
				`${rule}, FORWARD ${forward}`,
			);
		}
		for (const rule of [
			"-p tcp -j DNAT --to-destination 172.17.0.2-172.17.0.9",
			"-p tcp -j DNAT --to-destination 172.17.0.2:80-90",
			"-p tcp -j NETMAP --to 172.17.0.0/24",
		]) {
			const printed = await sh(
				namespace,
				`iptables -t nat -F PREROUTING
				iptables -t nat -A PREROUTING ${rule}
				iptables -t nat -S`,
			);
			t.strictSame(
				ways([
					...parseIptables(printed, "iptables", "nat", "ipv4"),
					...parseIptables(
						"-P FORWARD DROP\n-A FORWARD -d 172.17.0.3/32 -p tcp -m tcp --dport 85 -j ACCEPT",
						...(["iptables", "filter", "ipv4"] as const),
					),
				]),
				[["unknown", "some"]],
				rule,
			);
		}
	},
);

t.test(
	"a bridge is the LAN's unless only machines and containers are on it",
	network(),
	async (t) => {
		const namespace = await makeNamespace(t);
		const outside = async () =>
			((await inForce(namespace, "filter.outside")) as string[]).filter(
				(name) => /^(br-|eth)/.test(name),
			);
		await sh(
			namespace,
			`ip link add eth0 type veth peer name veth0
			for name in none veth tap; do ip link add br-$name type bridge; done
			ip link set veth0 master br-veth
			ip tuntap add tap0 mode tap
			ip link set tap0 master br-tap`,
		);
		t.strictSame(await outside(), ["eth0"]);
		// What has no machine's end, and which of them a kernel has differs.
		const made = await sh(
			namespace,
			`for port in 'bond type bond' 'vlan link eth0 type vlan id 7' 'vxlan type vxlan id 7 dstport 4789' 'ifb type ifb'; do
				name=\${port%% *}
				ip link add "p-$name" \${port#* } 2>/dev/null || continue
				ip link add "br-$name" type bridge
				ip link set "p-$name" master "br-$name"
				echo "br-$name"
			done`,
		);
		const bridges = made.trim().split("\n");
		t.not(bridges.length, 0);
		t.strictSame(await outside(), [...bridges, "eth0"].sort());
		// In a container the way out may be a veth.
		await sh(
			namespace,
			`ip link set br-veth up
			ip addr add 192.168.7.2/24 dev br-veth
			ip route add default via 192.168.7.1`,
		);
		t.ok((await outside()).includes("br-veth"), "the default route's");
	},
);

import { spawnSync } from "node:child_process";
import t from "tap";
import { inOneFile } from "../support/inOneFile.ts";
import {
	makeNamespace,
	type Namespace,
	network,
} from "../support/namespaces.ts";

/** Options for a test that needs both kinds of iptables. */
function bothKinds(): { skip: string | false } {
	const { skip } = network();
	if (skip !== false) return { skip };
	const [command = "", ...args] = "unshare -n iptables-legacy -t nat -S".split(
		" ",
	);
	const { status, stderr } = spawnSync(command, args, { encoding: "utf8" });
	if (status === 0) return { skip: false };
	const why = `iptables-legacy does not run here: ${stderr}`;
	if (process.env.CI) throw new Error(`in CI these tests must run: ${why}`);
	return { skip: why };
}

/** Chooses the older kind of iptables, in this mount namespace alone. */
const legacy = `mount -t tmpfs none /usr/local/sbin
	for name in iptables ip6tables; do ln -s "/usr/sbin/$name-legacy" "/usr/local/sbin/$name"; done`;

const nft = (rules: string) => `nft -f - <<'end'\n${rules}\nend`;

const ownDnat = nft(`table ip nat {
	chain prerouting {
		type nat hook prerouting priority dstnat;
		tcp dport 8081 dnat to 127.0.0.1:11434
	}
}`);
const ownInput = (policy: string, rule = "") =>
	nft(`table ip filter {
	chain input {
		type filter hook input priority filter; policy ${policy};
		${rule}
	}
}`);

const reader = await inOneFile(t, "kernelFilterRead");

/** What doctor reads: how far packets for a port get, by what, and where others are led. */
interface Read {
	failed?: string;
	ssh?: string;
	ollama?: string;
	/** What firewall.default says. */
	byDefault?: string;
	/** What firewall.forged-source says. */
	forged?: string;
	by?: string[];
	led?: string[];
	missed?: string[];
	unread?: string[];
}

/** What it reads after each of these scripts, of which each finds what those before it have left. */
async function readAfterEach(
	namespace: Namespace,
	scripts: readonly string[],
): Promise<Read[]> {
	const { code, stdout, stderr } = await namespace.run(
		...[process.execPath, reader, ...scripts],
	);
	if (code !== 0) throw new Error(stderr);
	const found: Read[] = stdout
		.trim()
		.split("\n")
		.map((line) => JSON.parse(line));
	if (found.length !== scripts.length) throw new Error(stdout);
	return found;
}

async function read(namespace: Namespace, script: string): Promise<Read> {
	const [found] = await readAfterEach(namespace, [script]);
	if (found === undefined) throw new Error("nothing was read");
	return found;
}

t.test(
	"rules of nftables' own in a table of iptables' name",
	bothKinds(),
	async (t) => {
		const text =
			"nft ip nat prerouting: tcp dport 8081 dnat to 127.0.0.1:11434";
		const led = [`a rule leads from port 8081 to 127.0.0.1:11434: ${text}`];
		for (const [kind, choose] of [
			["nf_tables", ":"],
			["legacy", legacy],
		] as const) {
			t.match(
				await read(await makeNamespace(t), `${choose}\n${ownDnat}`),
				{ led, missed: [] },
				`${kind}: a translation`,
			);
			t.match(
				await read(
					await makeNamespace(t),
					`${choose}
					iptables-legacy -t nat -P PREROUTING ACCEPT
					${ownDnat.replace("chain prerouting", "chain PREROUTING")}`,
				),
				{ led: [led[0]?.replace("prerouting", "PREROUTING")] },
				`${kind}: in a chain of iptables' name`,
			);
			t.strictSame(
				(
					await read(
						await makeNamespace(t),
						`${choose}\n${ownInput("drop", "tcp dport 22 accept")}`,
					)
				).by,
				["nft ip filter input: tcp dport 22 accept"],
				`${kind}: what lets in is named, and not an INPUT that is not there`,
			);
			t.match(
				await read(await makeNamespace(t), `${choose}\n${ownInput("drop")}`),
				{ ssh: "none" },
				`${kind}: a policy`,
			);
			const beside = await read(
				await makeNamespace(t),
				`iptables-nft -P INPUT DROP
			iptables-nft -A INPUT -p tcp --dport 22 -m addrtype --dst-type LOCAL -j ACCEPT
			iptables-nft -t nat -A PREROUTING -p tcp --dport 8082 -j DNAT --to-destination 127.0.0.1:11434
			${choose}\n${ownDnat}\n${ownInput("accept")}`,
			);
			t.equal(beside.led?.length, 2, `${kind}: both tools' rules in one table`);
			t.match(beside.by, [/^iptables(-nft)? -A INPUT -p tcp .*ACCEPT$/]);
		}
	},
);

t.test(
	"both kinds of iptables are read, whichever is the usual one",
	bothKinds(),
	async (t) => {
		for (const choose of [":", legacy]) {
			const { led } = await read(
				await makeNamespace(t),
				`for kind in nft legacy; do
				iptables-$kind -t nat -A PREROUTING -p tcp --dport 8081 -m addrtype --dst-type LOCAL -j DNAT --to-destination 127.0.0.1:11434
			done
			${choose}`,
			);
			t.equal(led?.length, 2, choose);
		}
	},
);

t.test(
	"rules that cannot be read are no pass for Ollama",
	network(),
	async (t) => {
		const mixed = `iptables-nft -N theirs
		iptables-nft -A theirs -p tcp -m addrtype --dst-type LOCAL -j ACCEPT
		${ownInput("drop", "jump theirs")}`;
		const { failed, missed } = await read(await makeNamespace(t), mixed);
		t.match(failed, /ip filter/, "a chain that neither tool shows in whole");
		t.match(missed, [failed]);
		const inTheirs = await read(
			await makeNamespace(t),
			`iptables-nft -t nat -A PREROUTING -p tcp --dport 82 -m addrtype --dst-type LOCAL -j DNAT --to-destination 172.17.0.2:80
			nft add rule ip nat PREROUTING tcp dport 8081 dnat to 127.0.0.1:11434`,
		);
		t.match(inTheirs.failed, /ip nat PREROUTING .*keep those of either/);
		t.match(inTheirs.missed, [inTheirs.failed]);
		const without = await read(
			await makeNamespace(t),
			`${ownDnat}
		mount -t tmpfs none /usr/local/sbin
		printf '#!/bin/sh\\nexit 127\\n' >/usr/local/sbin/nft
		chmod +x /usr/local/sbin/nft`,
		);
		t.match(
			without.failed,
			/nat.*install nftables/,
			"only nft would show those",
		);
		t.match(without.missed, [without.failed]);
		const unseen = await read(
			await makeNamespace(t),
			`mount -t tmpfs none /usr/local/sbin
		printf '#!/bin/sh\\nexit 127\\n' >/usr/local/sbin/nft
		chmod +x /usr/local/sbin/nft`,
		);
		t.match(unseen.missed, unseen.unread);
		t.equal(unseen.missed?.length, 1);
	},
);

t.test(
	"iptables is asked for the tables that nft shows",
	network(),
	async (t) => {
		const failing = `mount -t tmpfs none /usr/local/sbin
		printf '#!/bin/sh\n[ "$1" != -V ] && { echo "no memory" >&2; exit 1; }\necho "(nf_tables)"\n' >/usr/local/sbin/iptables
		chmod +x /usr/local/sbin/iptables`;
		const { failed } = await read(
			await makeNamespace(t),
			`iptables-nft -t mangle -A INPUT -m addrtype --dst-type LOCAL -j ACCEPT\n${failing}`,
		);
		t.match(failed, /iptables -t mangle -S: no memory/);
		t.match(
			await read(await makeNamespace(t), `nft add table ip own\n${failing}`),
			{ failed: undefined, ssh: "all" },
		);
	},
);

t.test("a table that is dormant is no firewall", network(), async (t) => {
	const fw = `nft add table inet fw
		nft add chain inet fw input '{ type filter hook input priority 0; policy drop; }'`;
	t.match(await read(await makeNamespace(t), fw), { ssh: "none" });
	for (const [script, by] of [
		[`${fw}\nnft add table inet fw '{ flags dormant; }'`, "filter INPUT"],
		[
			`iptables -P INPUT DROP\nnft add table ip filter '{ flags dormant; }'`,
			"filter INPUT",
		],
	] as const)
		t.match(await read(await makeNamespace(t), script), {
			ssh: "all",
			by: [by],
		});
	const { failed } = await read(
		await makeNamespace(t),
		`${fw}
		mount -t tmpfs none /usr/local/sbin
		cat >/usr/local/sbin/nft <<'end'
#!/bin/sh
[ "$1" = -j ] || { echo "no memory" >&2; exit 1; }
exec /usr/sbin/nft "$@"
end
		chmod +x /usr/local/sbin/nft`,
	);
	t.match(failed, /no memory/, "where the one listing fails nothing is known");
});

/** A table of its own, with these rules in a chain that drops what is left, and what else it has. */
const own = (rules: string, more = "") =>
	nft(`table inet own {
	${more}
	chain other {
		accept
	}
	chain in {
		type filter hook input priority 0; policy drop;
		${rules}
	}
}`);

/** Gives a namespace an interface to neighbours, lan0, at 192.0.2.1. */
async function addLan(namespace: Namespace): Promise<void> {
	await namespace.ip(
		"link add lan0 type veth peer name other0",
		"address add 192.0.2.1/24 dev lan0",
		"link set lan0 up",
		"link set other0 up",
	);
}

/** How far packets for port 22 get by each of these rules, read all with the one set-up. */
async function sharesOf(
	namespace: Namespace,
	rules: readonly string[],
	{ more = "", setUp = ":" } = {},
): Promise<(string | undefined)[]> {
	const seen = await readAfterEach(
		namespace,
		rules.map((rule) => `${setUp}\nnft flush ruleset\n${own(rule, more)}`),
	);
	return seen.map(({ failed, ssh }) => failed ?? ssh);
}

t.test(
	"what nft writes beside an element does not hide it",
	network(),
	async (t) => {
		const namespace = await makeNamespace(t);
		const rules = [
			'iifname { "eth0" comment "lan", "eth1" } accept',
			'iifname { "eth0" counter, "eth1" } accept',
			'meta l4proto { tcp comment "x", udp } accept',
			'ip protocol { tcp comment "x", udp } accept',
			'ct state { new comment "x", established } accept',
			'fib daddr type { local comment "x", unicast } accept',
			'tcp dport { 22 comment "x", 80-90 } accept',
			'tcp dport vmap { 22 comment "x" : accept, 80 : drop }',
		];
		t.strictSame(
			await sharesOf(namespace, rules),
			rules.map(() => "all"),
		);
		t.strictSame(
			await sharesOf(namespace, [
				"meta nfproto { ipv4, ipv6 } tcp dport 22 accept",
				"meta nfproto ipv6 tcp dport 22 accept",
				"meta nfproto ipv4 tcp dport 22 accept",
			]),
			["some", "none", "all"],
		);
	},
);

t.test(
	"protocols are known where /etc/protocols names none",
	network(),
	async (t) => {
		const rules = [
			"meta l4proto { 6, 17 } accept",
			"meta l4proto 6 accept",
			"ip protocol 6 accept",
		];
		t.strictSame(
			await sharesOf(await makeNamespace(t), rules, {
				setUp: "mount --bind /dev/null /etc/protocols",
			}),
			rules.map(() => "all"),
		);
	},
);

/** A table that leads others elsewhere by these rules. */
const leading = (rules: string) =>
	nft(`table inet own {
	map places { type inet_service : ipv4_addr . inet_service; flags timeout; }
	map ways { type inet_service : verdict; flags timeout; }
	chain pre {
		type nat hook prerouting priority dstnat; policy accept;
		${rules}
	}
}`);

t.test("where a rule leads others", network(), async (t) => {
	const namespace = await makeNamespace(t);
	const where = async (rules: string) => {
		const { led = [], missed = [] } = await read(
			namespace,
			`nft flush ruleset\n${leading(rules)}`,
		);
		return [
			led.map((line) => / to (\S+):/.exec(line)?.[1]),
			missed.map((line) => line.split("nft inet own pre: ")[1]),
		];
	};
	const [map, ways] = [
		"dnat ip to tcp dport map @places",
		"tcp dport vmap @ways",
	] as const;
	t.strictSame(await where(map), [[], [map]], "who knows the map");
	t.strictSame(await where(ways), [[], [ways]], "nor what it decides");
	t.strictSame(
		await where(
			`${ways}\n\t\tmeta nfproto ipv4 tcp dport 81 dnat ip to 127.0.0.1:11434`,
		),
		[["127.0.0.1:11434"], [ways]],
		"a rule behind it counts",
	);
	t.strictSame(
		await where("meta nfproto ipv4 tcp dport 11000-12000 dnat ip to 127.0.0.1"),
		[["127.0.0.1:11434"], []],
		"Ollama's port is one of those",
	);
	t.strictSame(
		await where("meta nfproto ipv4 tcp dport 8000-9000 dnat ip to 127.0.0.1"),
		[[], []],
		"and none of these",
	);
	// What is led to this host without an address comes to that of its interface:
	// no Ollama on loopback hears it.
	await addLan(namespace);
	t.strictSame(
		await where("tcp dport 81 redirect to :11434"),
		[["192.0.2.1:11434"], []],
		"and where the interface has none of a family, nobody is led there",
	);
});

t.test(
	"loopback that a neighbour reaches, where the kernel takes its addresses from outside",
	network(),
	async (t) => {
		const namespace = await makeNamespace(t);
		await addLan(namespace);
		const led = async (script: string, on = 1) =>
			(
				await read(
					namespace,
					`echo ${on} >/proc/sys/net/ipv4/conf/lan0/route_localnet
					nft flush ruleset\n${script}`,
				)
			).led;
		t.strictSame(await led("", 0), []);
		const [line, ...others] = (await led("")) ?? [];
		t.match(line, /^lan0 takes .*127\.0\.0\.1:11434/);
		t.strictSame(others, []);
		t.strictSame(await led(ownInput("drop")), []);
		t.strictSame(await led(ownInput("drop", "tcp dport 11434 accept")), [line]);
		// As kubelet shuts what its kube-proxy opens.
		t.strictSame(
			await led(
				ownInput(
					"accept",
					"ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct status dnat accept; ip saddr != 127.0.0.0/8 ip daddr 127.0.0.0/8 ct state new drop",
				),
			),
			[],
		);
	},
);

t.test("a chain that is written in place", network(), async (t) => {
	const namespace = await makeNamespace(t);
	t.strictSame(
		await sharesOf(namespace, [
			"ct state new jump { tcp dport 22 accept; }",
			"ct state established jump { tcp dport 22 accept; }",
			"ct state new goto { tcp dport 22 accept; }\ntcp dport 22 accept",
			"jump { meta mark set 1; }\nmeta mark 1 accept",
		]),
		["some", "none", "some", "some"],
	);
	const { by } = await read(
		namespace,
		`nft flush ruleset\n${own("ct state new jump { tcp dport 22 accept; }")}`,
	);
	t.match(by, ["nft inet own in: ct state new jump { … }"]);
});

const sets = `set ok { type inet_service; elements = { 22 }; }
	set ranges { type inet_service; flags interval; elements = { 20-25 }; }
	set empty { type inet_service; }
	set lan { type ifname; elements = { "eth0" comment "lan" }; }
	set services { type inet_proto . inet_service; elements = { tcp . 22, udp . 53 }; }
	map vm { type inet_service : verdict; elements = { 22 : accept, 80 : jump other }; }
	map vmc { type inet_proto . inet_service : verdict; elements = { tcp . 22 : accept }; }
	map none { type inet_service : verdict; }
	set moving { type inet_service; flags timeout; elements = { 80 timeout 1h }; }
	set filled { type inet_service; flags dynamic; size 9; elements = { 80 }; }
	map movingVm { type inet_service : verdict; flags timeout; }`;

t.test(
	"named sets, maps and values beside each other",
	network(),
	async (t) => {
		const namespace = await makeNamespace(t);
		const cases = [
			["tcp dport @ok accept", "all", "none"],
			["tcp dport @ranges accept", "all", "none"],
			["tcp dport != @ok accept", "none", "all"],
			["tcp dport @empty accept", "none", "none"],
			["tcp dport != @empty accept", "all", "all"],
			["iifname @lan tcp dport @ok accept", "all", "none"],
			["meta l4proto . th dport { tcp . 22, udp . 53 } accept", "all", "none"],
			["meta l4proto . th dport @services accept", "all", "none"],
			["ip saddr . tcp dport { 10.0.0.0/8 . 20-25 } accept", "some", "none"],
			["ip saddr . udp dport != { 10.0.0.1 . 22 } accept", "none", "none"],
			["meta mark . tcp dport { 1 . 22 } accept", "none", "none"],
			["tcp dport vmap @vm", "all", "none"],
			["meta l4proto . th dport vmap @vmc", "all", "none"],
			["tcp dport vmap @none", "none", "none"],
			["tcp dport vmap { 22 : accept, * : drop }", "all", "none"],
			["tcp dport vmap { 11434 : drop, * : accept }", "all", "none"],
			["udp dport vmap { * : accept }", "none", "none"],
			// What rules and time change is not known.
			["tcp dport @moving accept", "some", "some"],
			["tcp dport @filled accept", "some", "some"],
			["udp dport @moving accept", "none", "none"],
			["tcp dport vmap @movingVm", "some", "some"],
			["tcp dport @ok accept\nadd @ok { tcp dport }", "some", "some"],
		] as const;
		const found = await readAfterEach(
			namespace,
			cases.map(([rule]) => `nft flush ruleset\n${own(rule, sets)}`),
		);
		for (const [index, [rule, ...wanted]] of cases.entries()) {
			const { ssh, ollama, by } = found[index] ?? {};
			t.strictSame([ssh, ollama], wanted, rule);
			const [first] = rule.split("\n");
			if (ssh !== "none")
				t.match(by, [`nft inet own in: ${first}`], "by that rule and no other");
		}
	},
);

t.test(
	"a chain that is unsure is named, and not an INPUT that is empty",
	network(),
	async (t) => {
		for (const others of ["", "iptables -P INPUT ACCEPT\n"])
			t.match(
				await read(
					await makeNamespace(t),
					`${others}${own("tcp dport @moving accept", sets)}`,
				),
				{
					byDefault: "finding",
					by: ["nft inet own in: tcp dport @moving accept"],
				},
			);
		for (const everybody of [
			own("accept"),
			"iptables -P INPUT DROP; iptables -A INPUT -j ACCEPT",
		])
			t.match(
				await read(await makeNamespace(t), everybody),
				{ byDefault: "finding", ssh: "all" },
				"a rule of one's own that lets all in",
			);
		t.match(
			await read(await makeNamespace(t), own("tcp dport @ok accept", sets)),
			{
				byDefault: "ok",
				ssh: "all",
			},
		);
		t.match(
			await read(
				await makeNamespace(t),
				`iptables -P INPUT ACCEPT\n${own("tcp dport @ok drop", sets).replace("policy drop", "policy accept")}`,
			),
			{ byDefault: "finding", ssh: "none", ollama: "all" },
		);
	},
);

t.test("a set too large to look through is not known", network(), async (t) => {
	const many = Array.from({ length: 1_200 }, (_, index) => 30_000 + index);
	const pairs = Array.from(
		{ length: 600 },
		(_, index) => `tcp . ${30_000 + index}`,
	);
	const namespace = await makeNamespace(t);
	t.strictSame(
		await sharesOf(
			namespace,
			[
				"tcp dport @many accept",
				"meta l4proto . th dport { tcp . 22 } accept",
				`meta l4proto . th dport { ${pairs.join(", ")} } accept`,
			],
			{
				more: `set many { type inet_service; elements = { ${many.join(", ")} }; }`,
			},
		),
		["some", "all", "some"],
	);
});

t.test(
	"tailscaled's own drop rule by nftables is known",
	network(),
	async (t) => {
		const tailscaled = (device: string) =>
			nft(`table ip filter {
	chain INPUT {
		type filter hook input priority filter; policy accept;
		counter jump ts-input
	}
	chain ts-input {
		iifname != "${device}" ip saddr 100.115.92.0/23 counter return
		iifname != "${device}" ip saddr 100.64.0.0/10 counter drop
		iifname "${device}" counter accept
	}
}`);
		const withoutIptables = `mount -t tmpfs none /usr/local/sbin
		printf '#!/bin/sh\nexit 127\n' | tee /usr/local/sbin/iptables >/usr/local/sbin/ip6tables
		chmod +x /usr/local/sbin/ip*tables`;
		for (const setUp of [":", withoutIptables])
			for (const [device, state] of [
				["tailscale0*", "ok"],
				["tailscale0", "ok"],
				["tailscale1*", "finding"],
			] as const)
				t.match(
					await read(await makeNamespace(t), `${setUp}\n${tailscaled(device)}`),
					{ forged: state },
					`${device}, ${setUp}`,
				);
	},
);

t.test(
	"rules that only iptables shows, in every chain that it has",
	bothKinds(),
	async (t) => {
		const chains = [
			...["PREROUTING", "OUTPUT"].map((chain) => `raw ${chain}`),
			...["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"].map(
				(chain) => `mangle ${chain}`,
			),
			...["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"].map(
				(chain) => `nat ${chain}`,
			),
			...["INPUT", "FORWARD", "OUTPUT"].map((chain) => `filter ${chain}`),
		];
		const rules = ["iptables", "ip6tables"].flatMap((command) =>
			chains.map((place) => {
				const [table = "", chain = ""] = place.split(" ");
				return `${command} -t ${table} -A ${chain} -p tcp -m multiport --dports 1,2 -j RETURN`;
			}),
		);
		for (const [kind, choose] of [
			["nf_tables", ":"],
			["legacy", legacy],
		] as const)
			t.match(
				await read(await makeNamespace(t), [choose, ...rules].join("\n")),
				{ led: [], missed: [], unread: [], failed: undefined },
				kind,
			);
	},
);

t.test(
	"a host with Docker and Tailscale hides nothing",
	network(),
	async (t) => {
		t.match(
			await read(
				await makeNamespace(t),
				`iptables -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
			iptables -t nat -N ts-postrouting
			iptables -t nat -A POSTROUTING -j ts-postrouting
			iptables -t nat -A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE`,
			),
			{ led: [], missed: [], unread: [], failed: undefined },
		);
	},
);

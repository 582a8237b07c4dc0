import { BlockList } from "node:net";
import fc from "fast-check";
import t from "tap";
import { wantedRules } from "../../src/netfilter/ufwOwnRules.ts";
import {
	type FirewallNow,
	planRules,
	type RuleChange,
} from "../../src/netfilter/ufwPlan.ts";
import {
	commandOf,
	type KeptRule,
	parseRuleFile,
	type RuleList,
	wordsOf,
} from "../../src/netfilter/ufwRules.ts";

type Kind = RuleList["kind"];
const anywhere = { ipv4: "0.0.0.0/0", ipv6: "::/0" } as const;

/** A packet that begins a connection, to one of this host's addresses. */
interface Packet {
	readonly kind: Kind;
	readonly interfaceIn: string;
	readonly from: string;
	readonly port: number;
	readonly protocol: "tcp" | "udp";
}

/** The addresses of each range, which rules write in a few ways only. */
const ranges = new Map<string, BlockList>();

function rangeOf(text: string, kind: Kind): BlockList {
	const known = ranges.get(text);
	if (known !== undefined) return known;
	const [base = "", bits] = text.split("/");
	const range = new BlockList();
	if (bits === undefined) range.addAddress(base, kind);
	else range.addSubnet(base, Number(bits), kind);
	ranges.set(text, range);
	return range;
}

/** What a firewall does with a packet: the first rule that fits it decides. Written anew here, for single packets. */
function isLetIn(
	lists: readonly RuleList[],
	packet: Packet,
	otherwise = false,
): boolean {
	const rules = lists.find(({ kind }) => kind === packet.kind)?.rules ?? [];
	for (const rule of rules) {
		if (rule.isRoute || rule.direction === "out") continue;
		if (rule.interfaceIn !== "" && rule.interfaceIn !== packet.interfaceIn)
			continue;
		if (rule.protocol !== "any" && rule.protocol !== packet.protocol) continue;
		// No packet of these tests comes from a port, or to an address, that a rule names.
		if (rule.fromPorts !== "any" || rule.to !== anywhere[packet.kind]) continue;
		const ports = rule.toPorts.split(",").map((part) => part.split(":"));
		const isPort = ports.some(
			([first, last = first]) =>
				packet.port >= Number(first) && packet.port <= Number(last),
		);
		if (rule.toPorts !== "any" && !isPort) continue;
		if (!rangeOf(rule.from, packet.kind).check(packet.from, packet.kind))
			continue;
		return rule.action === "allow" || rule.action === "limit";
	}
	return otherwise;
}

const blank: KeptRule = {
	action: "allow",
	log: "",
	isRoute: false,
	direction: "in",
	interfaceIn: "",
	interfaceOut: "",
	protocol: "any",
	toPorts: "any",
	to: "any",
	fromPorts: "any",
	from: "any",
	toApp: "",
	fromApp: "",
};

/** What UFW puts into each list for one of the commands that a plan may hold. */
function entryOf(command: string, kind: Kind): KeptRule | undefined {
	const [, action = "", alone, only] =
		/^(allow|deny) (\d+)(?:\/(tcp|udp))?$/.exec(command) ?? [];
	if (alone !== undefined)
		return {
			...blank,
			action,
			toPorts: alone,
			protocol: only ?? "any",
			to: anywhere[kind],
			from: anywhere[kind],
		};
	const [, interfaceIn = "", from, port = "", tcp] =
		/^allow (?:in on (\S+) )?(?:from (\S+) )?to any port (\d+)( proto tcp)?$/.exec(
			command,
		) ?? [];
	if (port === "") throw new Error(`no plan is to hold: ${command}`);
	if (from !== undefined && from.includes(":") !== (kind === "ipv6"))
		return undefined;
	return {
		...blank,
		interfaceIn,
		from: from ?? anywhere[kind],
		to: anywhere[kind],
		toPorts: port,
		protocol: tcp === undefined ? "any" : "tcp",
	};
}

const keyOf = (rule: KeptRule) =>
	JSON.stringify({ ...rule, action: "", log: "" });

/** What UFW makes of its rules: it never has two that differ in their verdict alone. */
function change(
	lists: readonly RuleList[],
	{ how, rule }: RuleChange,
): RuleList[] {
	return lists.map(({ kind, rules }) => {
		if (how === "delete")
			return { kind, rules: rules.filter((one) => commandOf(one) !== rule) };
		const entry = entryOf(rule, kind);
		if (entry === undefined) return { kind, rules };
		const key = keyOf(entry);
		const place = rules.findIndex((one) => keyOf(one) === key);
		// "Skipping inserting existing rule": what differs in its verdict stays as it is, too.
		if (how === "prepend")
			return { kind, rules: place < 0 ? [entry, ...rules] : rules };
		return {
			kind,
			rules: place < 0 ? [...rules, entry] : rules.with(place, entry),
		};
	});
}

const changeAll = (lists: readonly RuleList[], changes: RuleChange[]) =>
	changes.reduce<readonly RuleList[]>(change, lists);

/** Lists from what UFW writes into its files: `deny tcp 22 any any any in`. */
function kept(
	v4: readonly string[],
	v6: readonly string[] = [],
): readonly RuleList[] {
	const read = (lines: readonly string[], any: string) =>
		parseRuleFile(
			lines
				.map((line) => {
					const [verb, protocol, port, to, fromPort, from, ...rest] =
						line.split(" ");
					const range = (text = "") => (text === "any" ? any : text);
					return `### tuple ### ${[verb, protocol, port, range(to), fromPort, range(from), ...rest].join(" ")}`;
				})
				.join("\n"),
		);
	return [
		{ kind: "ipv4", rules: read(v4, anywhere.ipv4) },
		{ kind: "ipv6", rules: read(v6, anywhere.ipv6) },
	];
}

const plan = (
	lists: readonly RuleList[],
	now: FirewallNow = { default: "deny" },
	ports = [22],
) => planRules(lists, ports, now).map(({ how, rule }) => `${how} ${rule}`);

const connection = {
	clientAddress: "203.0.113.5",
	serverPort: 22,
	interfaceIn: "eth1",
};
/** The rules of a host that setup has been on. */
const settled = [
	"allow tcp 22 any any any in",
	"allow tcp 11434 any any any in_tailscale0",
	"allow tcp 443 any any any in_tailscale0",
	"allow udp 41641 any any any in",
	"deny any 11434 any any any in",
	"deny any 3000 any any any in",
	"deny any 8080 any any any in",
];

t.test(
	"where there are no rules, those that are wanted are made in their order",
	async (t) => {
		t.strictSame(
			plan(kept([]), { default: "off" }),
			wantedRules([22]).map((rule) => `append ${rule}`),
		);
		t.strictSame(wantedRules([22, 2222]), [
			"allow 22/tcp",
			"allow 2222/tcp",
			"allow in on tailscale0 to any port 11434 proto tcp",
			"allow in on tailscale0 to any port 443 proto tcp",
			"allow 41641/udp",
			"deny 11434",
			"deny 3000",
			"deny 8080",
		]);
		t.notOk(
			wantedRules([8080]).includes("deny 8080"),
			"a port on which sshd listens is not shut",
		);
	},
);

t.test("where all of them are there, nothing is to do", async (t) => {
	t.strictSame(plan(kept(settled, settled)), []);
	t.strictSame(
		plan(kept(settled, settled), { default: "deny", connection }),
		[],
	);
});

t.test(
	"a rule that shuts SSH gives way before a firewall that was off is turned on",
	async (t) => {
		// UFW would skip "prepend allow 22/tcp" and say nothing of it but that.
		const own = kept(
			["deny tcp 22 any any any in"],
			["deny tcp 22 any any any in"],
		);
		t.strictSame(plan(own, { default: "off" }).slice(0, 2), [
			"delete deny 22/tcp",
			"append allow 22/tcp",
		]);
		for (const rule of [
			"deny any 22 any any any in",
			"reject_log any 22 any any any in",
			"deny any any any any any in",
			"deny tcp 20:25 any any any in",
			"deny tcp 22 any any any OpenSSH - in",
		])
			t.ok(
				plan(kept([rule], [rule]), { default: "off" }).includes(
					"prepend allow 22/tcp",
				),
				rule,
			);
		const behind = [
			"deny any 22 any any any in",
			"allow tcp 22 any any any in",
		];
		t.strictSame(
			plan(kept(behind, behind), { default: "off" }).slice(0, 2),
			["delete allow 22/tcp", "prepend allow 22/tcp"],
			"one that stands behind it is put ahead",
		);
	},
);

t.test("a person's own rules for SSH stay as narrow as they are", async (t) => {
	for (const rule of [
		"limit tcp 22 any any any in",
		"allow tcp 22 any any any OpenSSH - in",
		"allow tcp 22 any any 10.0.0.0/8 in",
		"allow tcp 22 any any any in_tailscale0",
	])
		for (const state of ["off", "deny"] as const)
			t.notMatch(
				plan(kept([rule, "deny any 22 any any any in"], []), {
					default: state,
				}),
				["allow 22/tcp"],
				`${rule}, ${state}`,
			);
	t.strictSame(
		plan(kept([], []), { default: "deny" }).filter((line) => / 22/.test(line)),
		[],
		"a firewall that is on and has SSH shut keeps it shut",
	);
});

t.test(
	"the connection that the person sits on is let in ahead of all else",
	async (t) => {
		const now = { default: "deny", connection } as const;
		const line = "prepend allow from 203.0.113.5 to any port 22 proto tcp";
		const shut = [
			"deny any any any any 203.0.113.0/24 in",
			"allow tcp 22 any any any in",
		];
		t.equal(plan(kept(shut, []), now)[0], line);
		t.notOk(plan(kept(settled, settled), now).includes(line));
		t.equal(
			plan(kept(["allow tcp 22 any any any in_eth0"], []), now)[0],
			line,
			"where it comes in by another interface",
		);
		const peer = {
			clientAddress: "100.101.102.105",
			serverPort: 22,
			interfaceIn: "tailscale0",
		};
		t.equal(
			plan(kept(["allow any any any any any in_tailscale0"], []), {
				default: "deny",
				connection: peer,
			})[0],
			"prepend allow in on tailscale0 to any port 22 proto tcp",
			"the tailnet's way to SSH stays, where a broader one goes",
		);
		t.equal(
			plan(kept([], []), {
				default: "deny",
				connection: {
					...peer,
					clientAddress: "fe80::1%eth0",
					interfaceIn: "eth0",
				},
			})[0],
			"prepend allow from fe80::1 to any port 22 proto tcp",
		);
		t.strictSame(
			plan(kept(settled, settled), {
				default: "deny",
				connection: {
					clientAddress: "127.0.0.1",
					serverPort: 2200,
					interfaceIn: "lo",
				},
			}),
			[],
			"UFW lets loopback in by itself",
		);
	},
);

t.test(
	"a rule that opens nothing but ports that are to be closed goes",
	async (t) => {
		for (const [entries, command] of [
			[["allow any 11434 any any any in"], "allow 11434"],
			[["limit_log tcp 8080 any any any in"], "limit log 8080/tcp"],
			[["allow tcp 3000,8080 any any any in"], "allow 3000,8080/tcp"],
			[
				["allow tcp 8080 any any 192.168.0.0/16 in_eth0"],
				"allow in on eth0 from 192.168.0.0/16 to any port 8080 proto tcp",
			],
			[["allow tcp 11434 any any any llamagate - in"], "allow llamagate"],
			[
				[
					"allow tcp 3000 any any any Web%20UI - in",
					"allow tcp 8080 any any any Web%20UI - in",
				],
				"allow 'Web UI'",
			],
			[["allow any any any any 100.64.0.0/10 in"], "allow from 100.64.0.0/10"],
			[
				["allow tcp any any any 100.64.0.0/10 in_eth0"],
				"allow in on eth0 from 100.64.0.0/10 proto tcp",
			],
			[["allow any any any any any in_tailscale0"], "allow in on tailscale0"],
		] as const) {
			const lines = plan(kept([...entries, ...settled], settled));
			t.ok(lines.includes(`delete ${command}`), `${command}: ${lines}`);
		}
		const six = "allow any any any any fd7a:115c:a1e0::/48 in";
		t.ok(
			plan(kept(settled, [six, ...settled])).includes(
				"delete allow from fd7a:115c:a1e0::/48",
			),
		);
	},
);

t.test("a rule that opens other ports too stays, behind ours", async (t) => {
	for (const rule of [
		"allow tcp 80,443,8080 any any any in",
		"allow any any any any 192.168.0.0/16 in",
		"allow tcp 1:65535 any any any in",
		"allow tcp any any any any in_eth0",
		"allow any 8080 any 53 any in",
		"allow tcp 8080 192.168.1.2 any any in",
	]) {
		const ours = [rule, ...settled];
		const lines = plan(kept(ours, settled));
		if (rule.includes(" any 8080 ") || rule.includes("192.168.1.2")) {
			t.ok(lines[0]?.startsWith("delete allow"), `${lines}`);
			continue;
		}
		t.notOk(
			lines.some((line) =>
				line.includes(commandOf(kept([rule])[0]?.rules[0] as KeptRule)),
			),
			`${rule} is not touched`,
		);
		t.strictSame(lines.slice(-6), [
			"prepend deny 8080",
			"prepend deny 3000",
			"prepend deny 11434",
			"prepend allow 41641/udp",
			"prepend allow in on tailscale0 to any port 443 proto tcp",
			"prepend allow in on tailscale0 to any port 11434 proto tcp",
		]);
	}
});

t.test("rules that have no say on what comes in are left alone", async (t) => {
	const others = [
		"route:allow tcp 8080 any any any in_eth0!out_eth1",
		"allow any 8080 any any any out",
		"deny any any any any any out_eth0",
		"deny any any any any 45.1.2.3 in",
		"allow tcp 11434 any any 100.101.102.105 llamagate - in_tailscale0",
		"reject any 113 any any any in comment=6964656e74",
		"allow esp any any any any in",
	];
	t.strictSame(plan(kept([...others, ...settled], settled)), []);
});

t.test("rules in the files of UFW are read as it writes them", async (t) => {
	const lists = parseRuleFile(`*filter
:ufw-user-input - [0:0]
### RULES ###

### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment=6d7920737368
-A ufw-user-input -p tcp --dport 22 -j ACCEPT

### tuple ### limit_log-all tcp 80,443 0.0.0.0/0 any 0.0.0.0/0 Web%20Admin - in_eth0
### tuple ### route:deny udp any 10.1.1.1 53 10.0.0.0/8 in_eth0!out_eth1
### tuple ### allow any 5000 ::/0 any ::/0 out_eth0.100
### tuple ### allow tcp 25 0.0.0.0/0 any 0.0.0.0/0
### END RULES ###
`);
	t.strictSame(lists.map(commandOf), [
		"allow 22/tcp",
		"limit in on eth0 log-all to any app 'Web Admin'",
		"route deny in on eth0 out on eth1 from 10.0.0.0/8 port 53 to 10.1.1.1 proto udp",
		"allow out on eth0.100 to any port 5000",
		"allow 25/tcp",
	]);
	t.strictSame(wordsOf("limit in on eth0 to any app 'Web Admin'"), [
		...["limit", "in", "on", "eth0", "to", "any", "app", "Web Admin"],
	]);
});

/** Rules of every kind, of which some matter and some only look as if. */
const someRule = fc
	.record({
		action: fc.constantFrom(
			"allow",
			"allow",
			"limit",
			"deny",
			"deny",
			"reject",
		),
		log: fc.constantFrom("", "", "", "log", "log-all"),
		isRoute: fc.constantFrom(false, false, false, false, true),
		direction: fc.constantFrom("in", "in", "in", "in", "out"),
		interfaceIn: fc.constantFrom("", "", "", "eth0", "eth1", "tailscale0"),
		protocol: fc.constantFrom("any", "tcp", "tcp", "udp"),
		toPorts: fc.constantFrom(
			...["any", "any", "22", "22", "2222", "11434", "3000", "8080", "443"],
			...["41641", "80,443,8080", "3000,8080", "3000:9000", "20:25", "1:65535"],
		),
		to: fc.constantFrom("any", "any", "any", "any", "192.168.77.1"),
		fromPorts: fc.constantFrom("any", "any", "any", "any", "53"),
		from: fc.constantFrom(
			...["any", "any", "any", "100.64.0.0/10", "fd7a:115c:a1e0::/48"],
			...["192.168.77.0/24", "192.168.77.2", "100.101.102.105", "203.0.113.5"],
			...["2001:db8:77::/64", "fd7a:115c:a1e0::105", "0.0.0.0/1"],
		),
		app: fc.constantFrom("", "", "", "Web Admin"),
	})
	.map(({ app, ...rule }): KeptRule => {
		const isMany = /[,:]/.test(rule.toPorts);
		const inwards = rule.direction === "in";
		return {
			...blank,
			...rule,
			interfaceIn: inwards ? rule.interfaceIn : "",
			// UFW asks for a protocol where there are many ports.
			protocol: isMany && rule.protocol === "any" ? "tcp" : rule.protocol,
			toApp: rule.toPorts === "any" ? "" : app,
			to: rule.from.includes(":") ? "any" : rule.to,
		};
	});

/** Both lists, each in an order of its own, without what UFW would refuse as being there already. */
const someLists = fc
	.tuple(
		fc.uniqueArray(someRule, { maxLength: 7, selector: keyOf }),
		fc.array(fc.nat(100), { minLength: 7, maxLength: 7 }),
	)
	.map(([rules, order]): RuleList[] =>
		(["ipv4", "ipv6"] as const).map((kind) => {
			const own = rules.flatMap((rule) =>
				[rule.from, rule.to].some(
					(range) =>
						range !== "any" && range.includes(":") !== (kind === "ipv6"),
				)
					? []
					: {
							...rule,
							from: rule.from === "any" ? anywhere[kind] : rule.from,
							to: rule.to === "any" ? anywhere[kind] : rule.to,
						},
			);
			if (kind === "ipv4") return { kind, rules: own };
			return {
				kind,
				rules: own
					.map((rule, index) => [order[index] ?? 0, rule] as const)
					.sort(([a], [b]) => a - b)
					.map(([, rule]) => rule),
			};
		}),
	);

const places: readonly (readonly [Kind, string, string])[] = [
	["ipv4", "eth0", "192.168.77.2"],
	["ipv4", "eth0", "192.168.77.9"],
	["ipv4", "eth0", "100.101.102.105"],
	["ipv4", "eth0", "100.99.1.2"],
	["ipv4", "eth1", "203.0.113.5"],
	["ipv4", "eth1", "198.51.100.7"],
	["ipv6", "eth0", "2001:db8:77::2"],
	["ipv6", "eth0", "fd7a:115c:a1e0::105"],
	["ipv6", "eth1", "2001:db8:9::9"],
];
const peers: readonly (readonly [Kind, string, string])[] = [
	["ipv4", "tailscale0", "100.99.1.2"],
	["ipv4", "tailscale0", "100.101.102.105"],
	["ipv6", "tailscale0", "fd7a:115c:a1e0::9"],
];
const packetsTo = (
	port: number,
	from: readonly (readonly [Kind, string, string])[],
	protocol: "tcp" | "udp" = "tcp",
): Packet[] =>
	from.map(([kind, interfaceIn, from]) => ({
		...{ kind, interfaceIn, from, port, protocol },
	}));
/** A packet for SSH that a rule fits, if it fits any. */
const firstOf = (kind: Kind, { from, interfaceIn }: KeptRule): Packet => ({
	...{ kind, port: 22, protocol: "tcp" },
	from:
		from === anywhere[kind]
			? // Of which no narrower rule speaks.
				{ ipv4: "198.51.100.7", ipv6: "2001:db8:9::9" }[kind]
			: (from.split("/")[0] ?? ""),
	interfaceIn: interfaceIn || "eth2",
});
const isPeer = ({ interfaceIn }: Packet) => interfaceIn === "tailscale0";
const show = (packet: Packet) =>
	`${packet.interfaceIn} ${packet.from} to ${packet.port}/${packet.protocol}`;

const someConnection = fc.constantFrom(
	...[undefined, connection],
	{ clientAddress: "192.168.77.2", serverPort: 22, interfaceIn: "eth0" },
	{ clientAddress: "2001:db8:77::2", serverPort: 22, interfaceIn: undefined },
	{ clientAddress: "100.99.1.2", serverPort: 22, interfaceIn: "tailscale0" },
	{ clientAddress: "192.168.77.9", serverPort: 2222, interfaceIn: "eth0" },
);
const someDefault = fc.constantFrom("off", "allow", "deny" as const);

/** Tries a property on many firewalls, and tells of the smallest for which it does not hold. */
function always(
	holds: (
		lists: readonly RuleList[],
		now: FirewallNow,
		changes: RuleChange[],
	) => void,
) {
	fc.assert(
		fc.property(
			someLists,
			someDefault,
			someConnection,
			(lists, state, connection) => {
				const now = { default: state, connection } as FirewallNow;
				holds(lists, now, planRules(lists, [22], now));
			},
		),
		{
			// The same firewalls each time; others, and more, to look for what was overlooked.
			seed: Number(process.env.FIREWALL_SEED ?? 1),
			numRuns: Number(process.env.FIREWALL_RUNS ?? 2_000),
			reporter(details) {
				if (!details.failed) return;
				const [lists, state, connection] = details.counterexample ?? [];
				throw new Error(
					[
						`${details.errorInstance} with ${state}, seed ${details.seed}`,
						JSON.stringify(connection),
						...(lists ?? []).flatMap(({ kind, rules }) =>
							rules.map((rule) => `${kind} ${commandOf(rule)}`),
						),
					].join("\n"),
				);
			},
		},
	);
}

function must(condition: boolean, message: () => string): void {
	if (!condition) throw new Error(message());
}

t.test(
	"whatever rules there were, Ollama and Open WebUI are shut to all but the tailnet",
	async () => {
		always((lists, { connection }, changes) => {
			const after = changeAll(lists, changes);
			for (const port of [11434, 3000, 8080])
				for (const protocol of ["tcp", "udp"] as const)
					for (const packet of packetsTo(port, places, protocol))
						must(
							!isLetIn(after, packet) || connection?.serverPort === port,
							() => show(packet),
						);
		});
	},
);

t.test(
	"whatever rules there were, the tailnet reaches the gate and Serve",
	async () => {
		always((lists, _now, changes) => {
			const after = changeAll(lists, changes);
			for (const port of [11434, 443])
				for (const packet of packetsTo(port, [
					...peers.filter(([, , from]) => from !== "100.101.102.105"),
				]))
					must(isLetIn(after, packet), () => show(packet));
		});
	},
);

t.test(
	"whatever rules there were, whoever got in by SSH still does, and nobody else",
	async () => {
		always((lists, { default: state, connection }, changes) => {
			const after = changeAll(lists, changes);
			// One that is off is to be turned on: the person's own rules are their word, if they let anybody in.
			const ownWord =
				state === "off" &&
				lists.some(({ kind, rules }) =>
					rules.some(
						(rule) =>
							/^(allow|limit)$/.test(rule.action) &&
							rule.toPorts !== "any" &&
							isLetIn([{ kind, rules: [rule] }], firstOf(kind, rule)) &&
							isLetIn(lists, firstOf(kind, rule)),
					),
				);
			// A device of the tailnet is the same in both families.
			const peersWere = (otherwise: boolean) =>
				packetsTo(22, peers).some((packet) =>
					isLetIn(lists, packet, otherwise),
				);
			for (const packet of packetsTo(22, [...places, ...peers])) {
				if (packet.from === connection?.clientAddress) continue;
				const is = isLetIn(after, packet);
				// These came by a rule that trusts an address that anybody can write into a packet.
				const isForgeable =
					packet.interfaceIn !== "tailscale0" &&
					/^(100\.|fd7a:)/.test(packet.from);
				if (state === "deny" || ownWord) {
					const was = isLetIn(lists, packet);
					must(!was || is || isForgeable, () => `lost: ${show(packet)}`);
					if (state === "deny")
						must(
							was || !is || (isPeer(packet) && peersWere(false)),
							() => `let in: ${show(packet)}`,
						);
				}
				if (state === "allow") {
					const was = isLetIn(lists, packet, true);
					must(!was || is || isForgeable, () => `lost: ${show(packet)}`);
					must(
						was || !is || (isPeer(packet) && peersWere(true)),
						() => `let in: ${show(packet)}`,
					);
				}
			}
			if (state === "off" && !ownWord)
				for (const packet of packetsTo(22, [["ipv4", "eth2", "198.51.100.7"]]))
					must(isLetIn(after, packet), () => `locked out: ${show(packet)}`);
		});
	},
);

t.test(
	"whatever rules there were, the person's connection is let in, and at no step is it cut off",
	async () => {
		always((lists, { connection }, changes) => {
			if (connection === undefined) return;
			const { clientAddress: from, serverPort: port } = connection;
			const packet: Packet = {
				kind: from.includes(":") ? "ipv6" : "ipv4",
				...{ interfaceIn: connection.interfaceIn ?? "eth0", from, port },
				protocol: "tcp",
			};
			let state = lists;
			let was = isLetIn(lists, packet);
			for (const one of changes) {
				state = change(state, one);
				const is = isLetIn(state, packet);
				must(is || !was, () => `cut off by: ${one.how} ${one.rule}`);
				was = is;
			}
			must(was, () => "not let in at the end");
		});
	},
);

t.test(
	"whatever rules there were, a second look finds nothing to do",
	async () => {
		always((lists, { connection }, changes) => {
			const after = changeAll(lists, changes);
			const again = planRules(after, [22], {
				default: "deny",
				connection,
			} as FirewallNow);
			must(again.length === 0, () =>
				again.map(({ how, rule }) => `${how} ${rule}`).join("; "),
			);
		});
	},
);

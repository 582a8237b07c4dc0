import { execFileSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import { actionFor, ruleFiles } from "../../src/host/firewall/ruleActions.ts";
import { wantedRules } from "../../src/netfilter/ufwOwnRules.ts";
import { type FirewallNow, planRules } from "../../src/netfilter/ufwPlan.ts";
import { commandOf } from "../../src/netfilter/ufwRules.ts";
import { addresses, type Namespace, network } from "../support/namespaces.ts";
import { probePorts } from "../support/setupHost.ts";
import { replayTailscaledRules } from "../support/tailscaledRules.ts";
import { requireTool } from "../support/tools.ts";
import { makeUfwHost, type UfwHost } from "../support/ufw.ts";

if (!requireTool(t, "ufw", "iptables", "python3", "shellcheck")) process.exit();

const rulesFile = path.resolve("ufw/rules.sh");

t.jobs = 4;

/** A neighbour's addresses that pretend to be of the tailnet. */
const spoofed = { v4: "100.99.1.2", v6: "fd7a:115c:a1e0::9" };
const ports = [22, 80, 443, 2222, 3000, 8080, 11434];

/** A server that listens everywhere, on every port that matters, between a LAN and a tailnet. */
async function startHost(t: Test): Promise<UfwHost> {
	const host = await makeUfwHost(t);
	const { server, neighbour } = host;
	await neighbour.ip(
		`addr add ${spoofed.v4}/32 dev eth0`,
		`addr add ${spoofed.v6}/128 dev eth0 nodad`,
	);
	// Answers to such an address find their way back to the LAN.
	await server.ip(
		`route add ${spoofed.v4}/32 dev eth0`,
		`route add ${spoofed.v6}/128 dev eth0`,
	);
	const listener = server.start(
		...["python3", "-uc"],
		`import socket, sys, time
held = [socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True, backlog=64) for port in sys.argv[1:]]
print("listening")
time.sleep(3600)`,
		...ports.map(String),
	);
	await new Promise((resolve) => listener.stdout.once("data", resolve));
	return host;
}

type Sight = Readonly<Record<string, readonly number[]>>;

/** Which ports each side finds open. */
async function look({ peer, neighbour }: UfwHost): Promise<Sight> {
	const { server, lanServer } = addresses;
	const sides: [string, Namespace, string, string?][] = [
		["LAN", neighbour, lanServer.v4],
		["LAN, IPv6", neighbour, lanServer.v6],
		["LAN, to the tailnet's address", neighbour, server.v4],
		["LAN, as a tailnet peer", neighbour, server.v4, spoofed.v4],
		["LAN, IPv6, as a tailnet peer", neighbour, server.v6, spoofed.v6],
		["tailnet", peer, server.v4],
		["tailnet, IPv6", peer, server.v6],
	];
	const seen = await Promise.all(
		sides.map(async ([side, from, address, source]) => {
			const answers = await probePorts(from, address, ports, source);
			return [
				side,
				ports.filter((port) => answers.get(port) === "open"),
			] as const;
		}),
	);
	return Object.fromEntries(seen);
}

const locked: Sight = {
	LAN: [22],
	"LAN, IPv6": [22],
	"LAN, to the tailnet's address": [22],
	"LAN, as a tailnet peer": [22],
	"LAN, IPv6, as a tailnet peer": [22],
	tailnet: [22, 443, 11434],
	"tailnet, IPv6": [22, 443, 11434],
};

t.test(
	"run by hand, rules.sh leaves SSH open, and the gate and HTTPS to the tailnet alone",
	network(),
	async (t) => {
		const host = await startHost(t);
		const { ufw } = host;
		t.strictSame((await look(host)).LAN, ports, "everything is open before");

		await ufw.must("sh", rulesFile);
		t.strictSame(await ufw.added(), wantedRules([22]), "the rules of setup");
		t.strictSame(await look(host), locked);
		t.match(await ufw.must("ufw", "status"), "Status: active");

		await t.test(
			"tailscaled's own rules let the tailnet to every port, whatever UFW says",
			async (t) => {
				await replayTailscaledRules({
					must: async (...command) => {
						const { code, stdout, stderr } = await host.server.run(...command);
						if (code !== 0) throw new Error(stderr);
						return stdout;
					},
				});
				t.strictSame(await look(host), {
					...locked,
					// tailscaled drops what pretends to be a peer, but for IPv6.
					"LAN, as a tailnet peer": [],
					tailnet: ports,
					"tailnet, IPv6": ports,
				});
			},
		);
	},
);

t.test(
	"why on the interface: by source address, a neighbour that forges one is served",
	network(),
	async (t) => {
		const host = await startHost(t);
		const { ufw } = host;
		await ufw.must("sh", rulesFile);
		await ufw.ufw(
			"prepend allow from 100.64.0.0/10",
			"prepend allow from fd7a:115c:a1e0::/48",
		);
		const seen = await look(host);
		t.strictSame(seen["LAN, as a tailnet peer"], ports);
		t.strictSame(seen["LAN, IPv6, as a tailnet peer"], ports);
		t.strictSame(seen.LAN, [22], "and one that does not is not");
	},
);

t.test(
	"rules.sh opens the ports of SSH that it is given, and no other",
	network(),
	async (t) => {
		const host = await startHost(t);
		const { ufw } = host;
		await ufw.must("sh", rulesFile, "2222", "8080");
		t.strictSame(await ufw.added(), wantedRules([2222, 8080]));
		const { LAN, tailnet } = await look(host);
		t.strictSame(LAN, [2222, 8080]);
		t.strictSame(tailnet, [443, 2222, 8080, 11434]);
	},
);

/** Carries a plan out, as setup would. */
async function apply(
	{ ufw }: UfwHost,
	now: FirewallNow,
): Promise<readonly string[]> {
	const changes = planRules(await ufw.lists(), [22], now);
	for (const { command } of changes.map((change) => actionFor(change, [])))
		await ufw.must(...command);
	return changes.map(({ how, rule }) => `${how} ${rule}`);
}

const neighbour = {
	clientAddress: addresses.lanNeighbour.v4,
	serverPort: 22,
	interfaceIn: "eth0",
};

for (const [what, own, seen, now] of [
	[
		"that shut SSH",
		["deny 22/tcp", "deny log 22", "reject 20:25/tcp", "allow 22/tcp"],
		locked,
		{ default: "off" },
	],
	[
		"that open everything to some",
		[
			"allow from 192.168.77.0/24",
			"allow in on eth0 proto tcp",
			"prepend allow from 2001:db8::/32",
			"limit 3000:9000/tcp comment 'games'",
			"allow 'Web Admin'",
			"allow WebUI",
			"allow 11434",
			"allow from 100.64.0.0/10",
			"allow in on tailscale0",
			"allow ssh",
		],
		{
			LAN: [22, 80, 443, 2222],
			"LAN, IPv6": [22, 80, 443, 2222],
			"LAN, to the tailnet's address": [22, 80, 443, 2222],
			"LAN, as a tailnet peer": [22, 80, 443, 2222],
			"LAN, IPv6, as a tailnet peer": [22, 80, 443, 2222],
			tailnet: [22, 80, 443, 11434],
			"tailnet, IPv6": [22, 80, 443, 11434],
		},
		{ default: "off" },
	],
	[
		"that shut out the tailnet and the person",
		[
			"deny in on tailscale0",
			"deny from 100.64.0.0/10 to any port 11434",
			"deny 11434",
			"allow in on tailscale0 to any port 11434 proto tcp",
			"allow OpenSSH",
			"prepend deny from 192.168.77.0/24",
		],
		{
			LAN: [22],
			"LAN, IPv6": [22],
			"LAN, to the tailnet's address": [22],
			"LAN, as a tailnet peer": [22],
			"LAN, IPv6, as a tailnet peer": [22],
			// Their own rule holds for all but the gate and Serve.
			tailnet: [443, 11434],
			"tailnet, IPv6": [443, 11434],
		},
		{ default: "off", connection: neighbour },
	],
	[
		"that are in force, with SSH for one address alone",
		[
			"allow from 192.168.77.2 to any port 22 proto tcp",
			"reject 22/tcp",
			"route allow 8080",
			"allow out 8080",
			"deny out on eth0 to any port 25",
			"--force enable",
		],
		{
			LAN: [22],
			"LAN, IPv6": [],
			"LAN, to the tailnet's address": [22],
			"LAN, as a tailnet peer": [],
			"LAN, IPv6, as a tailnet peer": [],
			tailnet: [443, 11434],
			"tailnet, IPv6": [443, 11434],
		},
		{ default: "deny", connection: neighbour },
	],
] as const)
	t.test(
		`setup's plan for rules ${what} does what it says, and a second finds nothing to do`,
		network(),
		async (t) => {
			const host = await startHost(t);
			const { ufw } = host;
			await ufw.ufw(...own);
			t.strictSame(
				// Both families' in turn, each once.
				[
					...new Set(
						(await ufw.lists()).flatMap(({ rules }) => rules.map(commandOf)),
					),
				].sort(),
				(await ufw.added())
					.map((line) => line.replace(/ comment '.*'$/, ""))
					.sort(),
				"rules are read as UFW itself shows them",
			);
			const changes = await apply(host, now);
			t.not(changes.length, 0);
			await ufw.ufw("default deny incoming", "--force enable");
			t.strictSame(await look(host), seen);
			t.strictSame(await apply(host, { ...now, default: "deny" }), []);
		},
	);

t.test(
	"rules that setup has put in are taken out by the commands that undo them",
	network(),
	async (t) => {
		const { ufw } = await startHost(t);
		await ufw.ufw("allow 'Web Admin'", "allow WebUI", "allow 11434/tcp");
		const before = (await ufw.added()).sort();
		const files = await Promise.all(
			(["ipv4", "ipv6"] as const).map(async (kind) => ({
				kind,
				text: await ufw.must("cat", ruleFiles[kind]),
			})),
		);
		const actions = planRules(await ufw.lists(), [22], {
			default: "off",
			connection: neighbour,
		}).map((change) => actionFor(change, files));
		for (const { command } of actions) await ufw.must(...command);
		for (const { undoIfChanged, undoInPlace } of actions.toReversed())
			for (const command of undoIfChanged ??
				undoInPlace?.lists.flatMap(({ command }) => [command ?? []]) ??
				[])
				await ufw.must(...command);
		t.strictSame((await ufw.added()).sort(), before);
	},
);

t.test("UFW knows llamagate as an application", network(), async (t) => {
	const { ufw } = await startHost(t);
	const shown = await ufw.must("ufw", "app", "info", "llamagate");
	t.match(shown, /Profile: llamagate/);
	t.match(shown, /Port:\s+11434\/tcp/);
	await ufw.ufw("allow in on tailscale0 to any app llamagate");
	t.notMatch(
		planRules(await ufw.lists(), [22], { default: "off" }).map(
			({ how }) => how,
		),
		["delete"],
		"setup leaves it there",
	);
});

t.test("shellcheck finds nothing in rules.sh", async (t) => {
	const script = await readFile(rulesFile, "utf8");
	t.equal(
		execFileSync("shellcheck", ["--shell=sh", "-"], {
			input: script,
			encoding: "utf8",
		}),
		"",
	);
});

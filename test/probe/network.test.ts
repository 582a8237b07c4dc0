import { mkdir, rm, writeFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { routes } from "../../src/ollama/routes.ts";
import type { Way } from "../../src/probe/place.ts";
import type { Result } from "../../src/report/result.ts";
import { eventually, testKeys } from "../support/gate.ts";
import {
	addresses,
	connect,
	gateV4,
	gateV6,
	joinLan,
	joinTailnet,
	makeNamespace,
	type Namespace,
	network,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";
import { program } from "../support/program.ts";
import { requireTool } from "../support/tools.ts";

// Each has networks of its own, and waits five seconds for each port that is silent.
t.jobs = 4;

type Tap = Parameters<typeof makeNamespace>[0];

/** Addresses of the internet, in a network that has none of it. */
const server4 = "20.30.40.50";
const server6 = "2606:4700:30::50";
/** Of the same server, but its device has no route to them. */
const prohibited = "20.30.40.51";
const noWay = "20.30.40.52";
const outside4 = "21.31.41.51";
const outside6 = "2606:4700:31::51";

/** Probes in a namespace; results by the last part of their ids. */
async function probe(
	from: Namespace,
	args: readonly string[],
	key?: string,
): Promise<{
	code: number | null;
	stderr: string;
	results: Record<string, Result>;
}> {
	const { code, stdout, stderr } = await from.run(
		...["env", ...(key === undefined ? [] : [`LLAMAGATE_KEY=${key}`])],
		...[process.execPath, program, "probe", ...args, "--json"],
	);
	// An error of the command line has none.
	const { results = [] } = JSON.parse(stdout) as { results?: Result[] };
	return {
		code,
		stderr,
		results: Object.fromEntries(
			results.map((result) => [result.id.replace("probe.", ""), result]),
		),
	};
}

/** A server with public addresses, and a device that reaches it from elsewhere. */
async function makeInternet(t: Tap, from: { v4: string; v6?: string }) {
	const server = await makeNamespace(t);
	const device = await makeNamespace(t);
	await connect(server, device, "eth0");
	await server.ip(
		`addr add ${server4}/32 dev eth0`,
		`addr add ${server6}/128 dev eth0 nodad`,
		`route add ${from.v4}/32 dev eth0`,
	);
	await device.ip(
		`addr add ${from.v4}/32 dev eth0`,
		`route add ${server4}/32 dev eth0 src ${from.v4}`,
	);
	if (from.v6 !== undefined) {
		await server.ip(`route add ${from.v6}/128 dev eth0`);
		await device.ip(
			`addr add ${from.v6}/128 dev eth0 nodad`,
			`route add ${server6}/128 dev eth0 src ${from.v6}`,
		);
	}
	return { server, device };
}

/** Listens on all addresses and says nothing. */
async function listenOn(namespace: Namespace, ...ports: number[]) {
	namespace.start(
		process.execPath,
		"--eval",
		`for (const port of ${JSON.stringify(ports)}) require("net").createServer(() => {}).listen(port, "::")`,
	);
	for (const port of ports) await listensOn(namespace, `*:${port}`);
}

async function listensOn(namespace: Namespace, address: string) {
	await eventually(async () => (await namespace.listeners()).includes(address));
}

async function must(namespace: Namespace, ...command: string[]) {
	const { code, stderr } = await namespace.run(...command);
	if (code !== 0) throw new Error(`${command.join(" ")}: ${stderr}`);
}

/** Has the addresses in the tailnet as Tailscale gives them: each by itself, with a route to the others. */
async function addressAsTailscale(server: Namespace, peer: Namespace) {
	for (const [machine, { v4, v6 }] of [
		[server, addresses.server],
		[peer, addresses.peer],
	] as const)
		await machine.ip(
			`addr del ${v4}/10 dev tailscale0`,
			`addr del ${v6}/64 dev tailscale0`,
			`addr add ${v4}/32 dev tailscale0`,
			`addr add ${v6}/128 dev tailscale0 nodad`,
			"route add 100.64.0.0/10 dev tailscale0",
			"route add fd7a:115c:a1e0::/48 dev tailscale0",
		);
}

/** How a namespace's device would reach the server. */
async function wayFrom(namespace: Namespace, address: string): Promise<Way> {
	const { stdout } = await namespace.run(
		...[process.execPath, "--input-type=module", "--eval"],
		`import { wayTo } from "./src/probe/place.ts";
		console.log(JSON.stringify(await wayTo(${JSON.stringify(address)})))`,
	);
	return JSON.parse(stdout) as Way;
}

/** Drops what comes for these ports, and remembers every port that is asked for. */
async function filter(namespace: Namespace, ...ports: number[]) {
	await must(
		namespace,
		"nft",
		`table inet probe {
			set asked { type inet_service; flags dynamic; size 65535; }
			counter opened { }
			chain input {
				type filter hook input priority 0; policy accept;
				iifname != "eth0" accept
				tcp flags & (syn | ack) == syn add @asked { tcp dport }
				${ports.length === 0 ? "" : `tcp dport { ${ports.join(", ")} } drop`}
				tcp flags & (syn | ack) == syn counter name opened
			}
		}`,
	);
}

t.test(
	"open, closed and filtered ports of a public address are told apart, by IPv4 and IPv6",
	{ ...network(), buffered: true },
	async (t) => {
		if (!requireTool(t, "nft")) return;
		const { server, device } = await makeInternet(t, {
			v4: outside4,
			v6: outside6,
		});
		await listenOn(server, 22, 3000);
		await filter(server, 443, 11434);
		for (const address of [server4, server6]) {
			const { code, results } = await probe(device, ["--public", address]);
			const at = (port: number) =>
				address.includes(":") ? `[${address}]:${port}` : `${address}:${port}`;
			t.equal(code, 1);
			t.match(results["public.22"], {
				state: "ok",
				evidence: [`${at(22)} is open`],
			});
			t.match(results["public.443"], {
				state: "ok",
				evidence: [
					`${at(443)} is filtered`,
					/a network that lets only some ports out/,
				],
			});
			t.match(results["public.11434"], {
				state: "ok",
				evidence: [
					`${at(11434)} is filtered`,
					/a network that lets only some ports out/,
				],
			});
			t.match(results["public.open-webui"], {
				state: "finding",
				severity: "high",
				evidence: [`${at(3000)} is open`],
			});
			// What listens there says nothing.
			t.match(results["public.ollama"], {
				state: "unknown",
				evidence: [`${at(3000)} is open`, /ss -ltnp/],
			});
			t.match(results["public.answers"], { state: "ok" });
			t.match(results["public.outside"], { state: "ok" });
			t.match(results["public.others"], { state: "absent" });
		}
		// No port but those, and one connection each, but two for 3000, which is
		// open and asked: three of five are not dropped.
		const { stdout: asked } = await server.run(
			...["nft", "--json", "list", "set", "inet", "probe", "asked"],
		);
		const listed = JSON.parse(asked) as {
			nftables: { set?: { elem?: number[] } }[];
		};
		t.strictSame(
			listed.nftables.flatMap(({ set }) => set?.elem ?? []).toSorted(),
			[22, 443, 3000, 8080, 11434].toSorted(),
		);
		const { stdout: opened } = await server.run(
			...["nft", "list", "counter", "inet", "probe", "opened"],
		);
		t.match(opened, /packets 8 /);
	},
);

t.test(
	"an Ollama that answers the internet is critical, and not any more when it is shut",
	{ ...network(), buffered: true },
	async (t) => {
		if (!requireTool(t, "nft")) return;
		const { server, device } = await makeInternet(t, { v4: outside4 });
		server.start(
			process.execPath,
			"test/support/standInProcess.ts",
			JSON.stringify({ host: "0.0.0.0", port: 11434 }),
		);
		await listensOn(server, "0.0.0.0:11434");
		const open = await probe(device, ["--public", server4]);
		t.equal(open.code, 1);
		t.match(open.results["public.ollama"], {
			state: "finding",
			severity: "critical",
			evidence: [`${server4}:11434 is open, and Ollama 0.35.0 answers`],
		});
		t.match(open.results["public.11434"], { state: "finding" });
		await filter(server, 11434);
		// As firewalld turns away: this device sees EHOSTUNREACH, and knows that there is a way.
		await must(
			server,
			...["nft", "add", "rule", "inet", "probe", "input"],
			...[
				"tcp",
				"dport",
				"3000",
				"reject",
				"with",
				"icmpx",
				"admin-prohibited",
			],
		);
		const shut = await probe(device, ["--public", server4]);
		t.equal(shut.code, 0);
		t.match(shut.results["public.ollama"], { state: "ok" });
		t.match(shut.results["public.11434"], { state: "ok" });
		t.match(shut.results["public.open-webui"], {
			state: "ok",
		});
		// A refusal is no silence, of which more would be said.
		t.strictSame(shut.results["public.open-webui"]?.evidence, [
			`${server4}:3000 is filtered`,
			`${server4}:8080 is closed`,
		]);
		// By IPv6 this device has no way there, which is no pass.
		const other = await probe(device, ["--public", server6]);
		t.match(other.results["public.11434"], {
			state: "unknown",
			evidence: [/out of this device's reach/],
		});
		t.match(other.results["public.ollama"], { state: "unknown" });
		t.match(other.results["public.answers"], { state: "unknown" });
	},
);

t.test(
	"an address that is silent altogether is not taken for a good firewall",
	{ ...network(), buffered: true },
	async (t) => {
		if (!requireTool(t, "nft")) return;
		const { server, device } = await makeInternet(t, { v4: outside4 });
		await filter(server, 22, 443, 3000, 8080, 11434);
		const [{ results }, webUi] = await Promise.all([
			probe(device, ["--public", server4]),
			probe(device, ["--webui", `https://${server4}`]),
		]);
		t.match(results["public.answers"], {
			state: "unknown",
			evidence: [/not one port of 20\.30\.40\.50 gave an answer/],
		});
		for (const id of ["ollama", "11434", "open-webui", "443", "22"])
			t.match(results[`public.${id}`], { state: "unknown" }, id);
		t.match(results["public.443"], {
			evidence: [`${server4}:443 is out of this device's reach (no port of`],
		});
		t.match(webUi.results["webui.raw-ports"], {
			state: "unknown",
			evidence: [/20\.30\.40\.50 gave no answer/],
		});
	},
);

t.test(
	"a name is looked up, each address is shown, and those that are not public are left out",
	{ ...network(), buffered: true },
	async (t) => {
		const { server, device } = await makeInternet(t, { v4: outside4 });
		await listenOn(server, 7777);
		const folder = path.join("/etc/netns", device.name);
		await mkdir(folder, { recursive: true });
		t.teardown(() => rm(folder, { recursive: true }));
		await writeFile(
			path.join(folder, "hosts"),
			[server4, server6, prohibited, noWay, "10.0.0.7"]
				.map((address) => `${address} box.example\n`)
				.join(""),
		);
		await device.ip(
			`route add prohibit ${prohibited}/32`,
			`route add unreachable ${noWay}/32`,
		);
		const { code, stderr, results } = await probe(device, [
			...["--public", "box.example", "--ports", "22,7777"],
		]);
		t.match(stderr, new RegExp(`box\\.example is .*${server4}`));
		t.match(stderr, new RegExp(`box\\.example is .*${server6}`));
		t.match(stderr, /Left out: 10\.0\.0\.7 is an address of a private network/);
		t.match(results["public.others"], {
			state: "finding",
			severity: "warn",
			evidence: [`${server4}:7777 is open`],
		});
		// Closed by IPv4, out of reach by IPv6: that is not known to be shut.
		t.match(results["public.22"], { state: "unknown" });
		t.strictSame(results["public.22"]?.evidence.toSorted(), [
			`${server4}:22 is closed`,
			`${prohibited}:22 is out of this device's reach (EACCES)`,
			`${noWay}:22 is out of this device's reach (EHOSTUNREACH)`,
			`[${server6}]:22 is out of this device's reach (ENETUNREACH)`,
		]);
		// One address that answers says nothing about the others.
		t.match(results["public.answers"], { state: "unknown" });
		for (const address of [prohibited, noWay, server6])
			t.ok(
				results["public.answers"]?.evidence.some((line) =>
					line.includes(address),
				),
				address,
			);
		t.match(results["public.11434"], { state: "absent" });
		t.equal(code, 0);
	},
);

t.test(
	"a public test from the server, its network or the tailnet says that it proves little",
	{ ...network(), buffered: true },
	async (t) => {
		const { server, device } = await makeInternet(t, { v4: "192.168.9.9" });
		const natted = await probe(device, ["--public", server4]);
		t.match(natted.results["public.outside"], {
			state: "unknown",
			evidence: [/sent from 192\.168\.9\.9/, /same router/],
		});

		const onServer = await probe(server, ["--public", server4]);
		t.match(onServer.results["public.outside"], {
			state: "finding",
			evidence: [/this is the server/],
		});

		await joinTailnet(server, device);
		await addressAsTailscale(server, device);
		const besides = await probe(device, ["--public", server4]);
		t.match(besides.results["public.outside"], {
			state: "unknown",
			evidence: [String, /in the tailnet .*tailscale0.*goes past/],
		});
		await device.ip(
			`route replace ${server4}/32 via ${addresses.server.v4} src ${addresses.peer.v4}`,
		);
		const through = await probe(device, ["--public", server4]);
		t.match(through.results["public.outside"], {
			state: "finding",
			evidence: [/through the tailnet/],
		});

		await device.ip("addr add 20.30.40.99/24 dev eth0");
		await device.ip(`route replace ${server4}/32 dev eth0 src 20.30.40.99`);
		const neighbour = await probe(device, ["--public", server4]);
		t.match(neighbour.results["public.outside"], {
			state: "finding",
			evidence: [/in the same network/],
		});
	},
);

t.test(
	"over the tailnet the key is sent, by IPv4 and IPv6; over the LAN it is not",
	{ ...network(), buffered: true },
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinTailnet(server, peer);
		await addressAsTailscale(server, peer);
		await joinLan(server, neighbour);
		await startStandInProcess(server, { tokenIntervalMs: 10 });
		const gate = await startDaemon(t, server, {
			sources: ["100.64.0.0/10", "fd7a:115c:a1e0::/48", "192.168.77.0/24"],
		});
		await gate.log.seen(
			({ msg, address }) => msg === "listening" && address === gateV4,
		);
		await gate.log.seen(
			({ msg, address }) => msg === "listening" && address === gateV6,
		);
		for (const where of [gateV4, gateV6]) {
			const { code, results } = await probe(peer, [where], testKeys.user);
			t.equal(code, 0, where);
			t.match(results.encrypted, { state: "ok", evidence: ["by Tailscale"] });
			t.match(results.elsewhere, { state: "ok" });
			t.match(results.stream, { state: "ok" });
		}
		const { code, results } = await probe(neighbour, [gateV4], testKeys.user);
		t.equal(code, 1);
		t.match(results["no-key"], { state: "ok" });
		t.match(results.encrypted, {
			state: "finding",
			severity: "high",
			evidence: [/plain HTTP to 100\.101\.102\.104, sent from 192\.168\.77\.2/],
		});
		t.match(results["key-accepted"], {
			state: "unknown",
			evidence: [/the key was not sent/],
		});
		const asked = () =>
			gate.log.all.filter(
				({ msg, ip }) => msg === "request" && ip === addresses.lanNeighbour.v4,
			);
		// The log comes through a pipe, and may be behind.
		await eventually(() => asked().length > routes.length);
		t.strictSame(
			asked().filter(({ key }) => key !== null),
			[],
		);
		const own = await probe(server, [gateV4], testKeys.user);
		t.match(own.results.elsewhere, { state: "finding", severity: "warn" });

		await gate.reconfigure({ listen: { port: 8443 } });
		const elsewhere = `${addresses.server.v4}:8443`;
		await gate.log.seen(
			({ msg, address }) => msg === "listening" && address === elsewhere,
		);
		const alone = await probe(peer, [elsewhere]);
		t.match(alone.results["no-key"], { state: "ok" });
		server.start(
			...[process.execPath, "test/support/standInProcess.ts"],
			JSON.stringify({ host: addresses.server.v4, port: 11434 }),
		);
		await listensOn(server, gateV4);
		const beside = await probe(peer, [elsewhere]);
		t.equal(beside.code, 1);
		t.match(beside.results["no-key"], {
			state: "finding",
			severity: "critical",
			evidence: [/100\.101\.102\.104:11434: Ollama .* beside the gate/],
		});
	},
);

t.test(
	"an address of 100.64.0.0/10 that is a provider's is no way through the tailnet",
	{ ...network(), buffered: true },
	async (t) => {
		const server = await makeNamespace(t);
		const customer = await makeNamespace(t);
		await joinTailnet(server, customer);
		await addressAsTailscale(server, customer);
		const to = addresses.server.v4;
		const own = addresses.peer.v4;
		t.match(await wayFrom(customer, to), { isPrivate: true, from: own });
		t.match(await wayFrom(customer, addresses.server.v6), { isPrivate: true });
		// Carrier-grade NAT (RFC 6598) has a network of many.
		await customer.ip(
			`addr del ${own}/32 dev tailscale0`,
			`addr add ${own}/10 dev tailscale0`,
		);
		t.match(await wayFrom(customer, to), { isPrivate: false, from: own });
		// Or a line to one customer, on an interface that is not Tailscale's.
		await customer.ip(
			`addr del ${own}/10 dev tailscale0`,
			`addr add ${own}/32 dev tailscale0`,
			"link set tailscale0 down",
			"link set tailscale0 name ppp0",
			"link set ppp0 up",
			"route add 100.64.0.0/10 dev ppp0",
		);
		t.match(await wayFrom(customer, to), { isPrivate: false, from: own });
	},
);

t.test(
	"--allow-private shows what the LAN sees, and says that this is not the internet",
	{ ...network(), buffered: true },
	async (t) => {
		const server = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinLan(server, neighbour);
		await listenOn(server, 8080);
		const address = addresses.lanServer.v4;
		const refused = await probe(neighbour, ["--public", address]);
		t.equal(refused.code, 2);
		const { code, results } = await probe(neighbour, [
			...["--public", address, "--allow-private"],
		]);
		t.equal(code, 1);
		t.match(results["public.open-webui"], {
			state: "finding",
			evidence: [`${address}:8080 is open`],
		});
		t.match(results["public.11434"], { state: "ok" });
		t.match(results["public.outside"], {
			state: "finding",
			evidence: [/same network/],
		});
	},
);

import t from "tap";
import { testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	curlExits,
	gateV4,
	gateV6,
	joinLan,
	joinTailnet,
	makeNamespace,
	network,
	ollama,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";

// Each test has networks of its own, and mostly waits.
t.jobs = 4;

t.test(
	"a gate that starts before its interface opens nothing, and serves over IPv4 and IPv6 once the interface is there",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const standIn = await startStandInProcess(server);
		const { log } = await startDaemon(t, server);

		const waiting = await log.seen(({ msg }) => /waiting/.test(String(msg)));
		t.equal(waiting.interface, "tailscale0");
		const started = await log.seen(({ msg }) => msg === "started");
		t.strictSame(started.listening, []);
		t.strictSame(await server.listeners(), [ollama]);

		await joinTailnet(server, peer);
		await becomes(
			t,
			server.listeners,
			[gateV4, ollama, gateV6].sort(),
			"both addresses are bound",
		);
		for (const gate of [gateV4, gateV6]) {
			t.equal((await ask(peer, gate)).status, 401, `${gate} without a key`);
			const answer = await ask(peer, gate, { key: testKeys.reader });
			t.equal(answer.status, 200, `${gate} with a key`);
			t.match(answer.body, /qwen3:8b/);
		}
		await becomes(
			t,
			standIn.calls,
			["GET /api/tags", "GET /api/tags"],
			"Ollama saw what had a key and nothing else",
		);
	},
);

t.test(
	"an interface that exists without an address is waited for, too",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		const { v4, v6 } = addresses.server;
		await server.ip("addr flush dev tailscale0");
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");
		t.strictSame(await server.listeners(), []);

		await server.ip(`addr add ${v4}/10 dev tailscale0`);
		await becomes(t, server.listeners, [gateV4], "the first address is bound");
		// Without nodad: for a second or two the address exists and cannot be bound.
		await server.ip(`addr add ${v6}/64 dev tailscale0`);
		await becomes(
			t,
			server.listeners,
			[gateV4, gateV6],
			"an address is bound once it can be",
		);
	},
);

t.test(
	"the gate listens on the Tailscale addresses of its interface and nowhere else",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinTailnet(server, peer);
		await joinLan(server, neighbour);
		await server.ip(
			// On the right interface, and nobody's tailnet address.
			"addr add 10.9.9.9/24 dev tailscale0",
			"addr add 100.63.255.255/32 dev tailscale0",
			"addr add 100.128.0.1/32 dev tailscale0",
			"addr add 100.100.100.100/32 dev tailscale0",
			"addr add fd7a:115c:a1e1::104/64 dev tailscale0 nodad",
			// In Tailscale's range, and on the wrong interface.
			"addr add 100.99.0.1/24 dev eth0",
		);
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");
		t.strictSame(await server.listeners(), [gateV4, gateV6]);

		const elsewhere = [
			[server, "127.0.0.1"],
			[server, "[::1]"],
			[server, "10.9.9.9"],
			[neighbour, addresses.lanServer.v4],
			[neighbour, `[${addresses.lanServer.v6}]`],
		] as const;
		for (const [from, host] of elsewhere) {
			const answer = await ask(from, `${host}:11434`, { key: testKeys.reader });
			t.equal(answer.curlExit, curlExits.refused, `${host} is closed`);
		}
		t.equal((await ask(peer, gateV4)).status, 401, "the gate is up meanwhile");
	},
);

import t from "tap";
import { testKeys } from "../support/gate.ts";
import {
	addresses,
	ask,
	becomes,
	gateV4,
	gateV6,
	joinLan,
	joinTailnet,
	linesOf,
	makeNamespace,
	network,
	ollama,
	startDaemon,
	startStandInProcess,
	startStream,
} from "../support/namespaces.ts";

// Each test has networks of its own, and mostly waits.
t.jobs = 4;

t.test(
	"the gate follows its interface from one address to another",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");
		t.strictSame(await server.listeners(), [gateV4, gateV6]);

		await server.ip(
			"addr del 100.101.102.104/10 dev tailscale0",
			"addr add 100.101.102.106/10 dev tailscale0",
		);
		await becomes(
			t,
			server.listeners,
			["100.101.102.106:11434", gateV6],
			"the new address is bound, the old one is not",
		);
		t.equal((await ask(peer, "100.101.102.106:11434")).status, 401);
		await log.seen(
			({ address, msg }) =>
				address === gateV4 && /no longer listening/.test(String(msg)),
		);

		await server.ip("addr add 100.101.102.107/10 dev tailscale0");
		await becomes(
			t,
			server.listeners,
			["100.101.102.106:11434", "100.101.102.107:11434", gateV6],
			"an address that is added is bound, too",
		);
		t.equal((await ask(peer, "100.101.102.107:11434")).status, 401);
	},
);

t.test(
	"an address that moves to another interface is let go",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinTailnet(server, peer);
		await joinLan(server, neighbour);
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");
		await server.ip(
			"addr del 100.101.102.104/10 dev tailscale0",
			"addr add 100.101.102.104/32 dev eth0",
		);
		await becomes(t, server.listeners, [gateV6], "it is not bound any more");
	},
);

t.test(
	"a stream on an address that stays goes on when another address goes",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		await startStandInProcess(server, { tokenIntervalMs: 5 });
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");

		const stream = startStream(peer, gateV6, testKeys.worker);
		await stream.seen(({ done }) => done === false);
		await server.ip("addr del 100.101.102.104/10 dev tailscale0");
		await becomes(
			t,
			server.listeners,
			[ollama, gateV6].sort(),
			"the other address is not bound any more",
		);
		const before = stream.all.length;
		const later = await stream.seen((_, index) => index >= before + 20);
		t.equal(later.done, false, "tokens keep coming");
	},
);

t.test(
	"a connection that idles lives through a moment without the interface",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");
		// Asks again and again on one connection, and waits for each answer.
		const client = linesOf(
			peer.start(
				...["python3", "-u", "-c"],
				`import http.client, time
gate = http.client.HTTPConnection("${addresses.server.v4}", 11434)
while True:
    gate.request("GET", "/api/tags", headers={"authorization": "Bearer ${testKeys.reader}"})
    print(gate.getresponse().read() and gate.sock.getsockname()[1])
    time.sleep(0.1)`,
			),
			Number,
		);
		const port = await client.seen(() => true);
		await server.ip("link del tailscale0");
		await log.seen(({ msg }) => /no longer listening/.test(String(msg)));
		await joinTailnet(server, peer);
		const before = client.all.length;
		t.equal(
			await client.seen((_, index) => index >= before + 3),
			port,
			"it goes on being asked on",
		);
	},
);

t.test(
	"a gate whose interface goes has nothing open, and comes back with the interface",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		const standIn = await startStandInProcess(server);
		const { log } = await startDaemon(t, server);
		await log.seen(({ msg }) => msg === "started");
		const all = [gateV4, ollama, gateV6].sort();
		t.strictSame(await server.listeners(), all);

		for (const time of ["once", "twice"]) {
			await server.ip("link del tailscale0");
			await becomes(
				t,
				server.listeners,
				[ollama],
				`${time}: nothing of the gate is open`,
			);
			await joinTailnet(server, peer);
			await becomes(t, server.listeners, all, `${time}: it listens again`);
			for (const gate of [gateV4, gateV6])
				t.equal(
					(await ask(peer, gate, { key: testKeys.reader })).status,
					200,
					`${time}: ${gate} serves again`,
				);
		}
		await becomes(t, () => standIn.calls().length, 4, "each reached Ollama");
		await becomes(
			t,
			() => log.all.filter(({ msg }) => /waiting/.test(String(msg))).length,
			2,
			"the log says each time that it waits",
		);
	},
);

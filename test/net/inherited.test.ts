import path from "node:path";
import t from "tap";
import { temporaryFolder, testKeys } from "../support/gate.ts";
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

const key = testKeys.owner;

/** A launcher that passes sockets on as systemd does. */
function inherit(...options: string[]): string[] {
	return ["python3", "test/support/inheritSocket.py", ...options];
}

t.test(
	"the gate serves on the sockets that it inherits",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		await startStandInProcess(server);
		const { v4, v6 } = addresses.server;
		const { log } = await startDaemon(
			t,
			server,
			{ listen: { interface: "elsewhere0" } },
			inherit("--address", v4, "--address", v6),
		);
		const started = await log.seen(({ msg }) => msg === "started");
		t.strictSame(started.listening, [gateV4, gateV6]);
		for (const gate of [gateV4, gateV6]) {
			t.equal((await ask(peer, gate)).status, 401, gate);
			t.equal((await ask(peer, gate, { key })).status, 200, gate);
		}
	},
);

t.test(
	"a socket bound to tailscale0 itself is not there for the LAN, whatever address a neighbour has",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinTailnet(server, peer);
		await joinLan(server, neighbour);
		const spoofed = "100.99.1.2";
		await neighbour.ip(`addr add ${spoofed}/32 dev eth0`);
		await server.ip(`route add ${spoofed}/32 dev eth0`);
		const standIn = await startStandInProcess(server);
		const { log } = await startDaemon(
			t,
			server,
			{},
			inherit("--device", "tailscale0", "--address", addresses.server.v4),
		);
		await log.seen(({ msg }) => msg === "started");
		t.strictSame(
			await server.listeners(),
			["100.101.102.104%tailscale0:11434", ollama].sort(),
		);

		for (const source of [spoofed, addresses.lanNeighbour.v4]) {
			const answer = await ask(neighbour, gateV4, { source, key });
			t.equal(answer.curlExit, curlExits.refused, `${source}: no connection`);
			t.equal(answer.bytes, 0);
		}
		t.equal((await ask(peer, gateV4, { key })).status, 200);
		await log.seen(({ ip }) => ip === addresses.peer.v4);
		t.strictSame(
			[...new Set(log.all.flatMap(({ ip }) => ip ?? []))],
			[addresses.peer.v4],
			"the gate never heard of the neighbour",
		);
		await becomes(t, standIn.calls, ["GET /api/tags"], "nor did Ollama");
	},
);

for (const address of ["0.0.0.0", "::", addresses.lanServer.v4])
	t.test(
		`an inherited socket bound to ${address} is refused at the start`,
		network(),
		async (t) => {
			const server = await makeNamespace(t);
			const neighbour = await makeNamespace(t);
			await joinLan(server, neighbour);
			const daemon = await startDaemon(
				t,
				server,
				{},
				inherit("--address", address),
			);
			const { code, stderr } = await daemon.ended();
			t.equal(code, 1);
			t.match(
				stderr,
				`bound to ${address}, which is neither loopback nor a Tailscale address`,
			);
			t.equal(stderr.trim().split("\n").length, 1, "one line, no stack");
			t.strictSame(await server.listeners(), [], "nothing is open");
		},
	);

t.test(
	"an inherited socket that is not TCP is refused at the start",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const folder = await temporaryFolder(t);
		const daemon = await startDaemon(
			t,
			server,
			{},
			inherit("--address", path.join(folder, "gate.sock")),
		);
		const { code, stderr } = await daemon.ended();
		t.equal(code, 1);
		t.match(stderr, "not a TCP socket");
		t.equal(stderr.trim().split("\n").length, 1, "one line, no stack");
	},
);

t.test(
	"a socket that is promised and not there is told in one line",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const promise = 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@"';
		const launcher = ["sh", "-c", promise, "sh"];
		const daemon = await startDaemon(t, server, {}, launcher);
		const { code, stderr } = await daemon.ended();
		t.equal(code, 1);
		t.match(stderr, "inherited");
		t.equal(stderr.trim().split("\n").length, 1, "one line, no stack");
	},
);

t.test(
	"one bad socket among those inherited is enough to refuse them all",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		const neighbour = await makeNamespace(t);
		await joinTailnet(server, peer);
		await joinLan(server, neighbour);
		const daemon = await startDaemon(
			t,
			server,
			{},
			inherit(
				...["--address", addresses.server.v4],
				...["--address", addresses.lanServer.v4],
			),
		);
		t.equal((await daemon.ended()).code, 1);
		t.strictSame(await server.listeners(), [], "nothing is open");
	},
);

t.test(
	"sockets that were meant for another process are not the gate's",
	network(),
	async (t) => {
		const server = await makeNamespace(t);
		const peer = await makeNamespace(t);
		await joinTailnet(server, peer);
		const { log } = await startDaemon(
			t,
			server,
			{},
			inherit(
				...["--listen-pid", "1", "--port", "9999"],
				...["--address", "0.0.0.0"],
			),
		);
		const started = await log.seen(({ msg }) => msg === "started");
		t.strictSame(started.listening, [gateV4, gateV6]);
		t.equal((await ask(peer, gateV4)).status, 401);
	},
);

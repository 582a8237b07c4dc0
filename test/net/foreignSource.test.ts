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
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";

// Each test has networks of its own, and mostly waits.
t.jobs = 4;

const key = testKeys.owner;
const { lanNeighbour } = addresses;

/** A server on a tailnet and on a LAN, with a peer on the one and a neighbour on the other. */
async function startServer(
	t: Parameters<typeof startDaemon>[0],
	config: Record<string, unknown>,
) {
	const server = await makeNamespace(t);
	const peer = await makeNamespace(t);
	const neighbour = await makeNamespace(t);
	await joinTailnet(server, peer);
	await joinLan(server, neighbour);
	const standIn = await startStandInProcess(server);
	const { log } = await startDaemon(t, server, config);
	await log.seen(({ msg }) => msg === "started");
	return { server, peer, neighbour, standIn, log };
}

t.test(
	"a LAN neighbour that gets through to a tailnet address is refused, whatever key it has",
	network(),
	async (t) => {
		const { peer, neighbour, standIn, log } = await startServer(t, {});
		for (const [gate, ip] of [
			[gateV4, lanNeighbour.v4],
			[gateV6, lanNeighbour.v6],
		] as const) {
			for (const options of [{}, { key }, { key: testKeys.wrong }]) {
				const answer = await ask(neighbour, gate, options);
				t.equal(answer.status, 403, gate);
				t.match(answer.body, /connect over Tailscale/);
			}
			const line = await log.seen((line) => line.ip === ip);
			t.match(line, {
				msg: "request",
				status: 403,
				reason: "foreign_source",
				outcome: "refused",
				key: null,
			});
		}
		t.equal((await ask(peer, gateV4, { key })).status, 200);
		await becomes(
			t,
			standIn.calls,
			["GET /api/tags"],
			"Ollama saw the peer's request and no other",
		);
		await log.seen(({ ip }) => ip === addresses.peer.v4);
		t.notOk(
			log.all.some(({ event }) => event === "auth_failed"),
			"the neighbour's keys were not even looked at",
		);
	},
);

t.test(
	'with "drop" a LAN neighbour gets not one byte',
	network(),
	async (t) => {
		const { peer, neighbour, standIn, log } = await startServer(t, {
			onForeignSource: "drop",
		});
		for (const [gate, ip] of [
			[gateV4, lanNeighbour.v4],
			[gateV6, lanNeighbour.v6],
		] as const) {
			for (const options of [{}, { key }]) {
				const answer = await ask(neighbour, gate, options);
				t.equal(answer.bytes, 0, gate);
				t.ok(
					answer.curlExit === curlExits.emptyReply ||
						answer.curlExit === curlExits.reset,
					"the connection was closed",
				);
			}
			const line = await log.seen((line) => line.ip === ip);
			t.match(line, { status: 0, reason: "foreign_source" });
		}
		t.equal((await ask(peer, gateV4, { key })).status, 200);
		await becomes(
			t,
			standIn.calls,
			["GET /api/tags"],
			"Ollama saw the peer's request and no other",
		);
	},
);

t.test(
	"addresses in Tailscale's range that no peer has are refused, even on tailscale0",
	network(),
	async (t) => {
		const { peer, standIn } = await startServer(t, {});
		for (const source of [
			"100.100.100.100",
			"100.115.92.5",
			"100.115.93.255",
			"fd7a:115c:a1e0::53",
		]) {
			const isV6 = source.includes(":");
			await peer.ip(
				`addr add ${source}/${isV6 ? "128" : "32"} dev tailscale0${isV6 ? " nodad" : ""}`,
			);
			const gate = isV6 ? gateV6 : gateV4;
			t.equal((await ask(peer, gate, { key, source })).status, 403, source);
		}
		for (const source of ["100.100.100.101", "100.115.94.1"]) {
			await peer.ip(`addr add ${source}/32 dev tailscale0`);
			const answer = await ask(peer, gateV4, { key, source });
			t.equal(answer.status, 200, `${source} may be a peer's`);
		}
		await becomes(
			t,
			() => standIn.calls().length,
			2,
			"Ollama saw the peers' requests and no other",
		);
	},
);

// What range and address cannot tell: see the inherited sockets for what can.
t.test(
	"a LAN neighbour with a peer's kind of address is taken for a peer, so the key alone holds it",
	network(),
	async (t) => {
		const { server, neighbour, standIn } = await startServer(t, {});
		const source = "100.99.1.2";
		await neighbour.ip(`addr add ${source}/32 dev eth0`);
		await server.ip(`route add ${source}/32 dev eth0`);
		t.equal((await ask(neighbour, gateV4, { source })).status, 401);
		t.equal(
			(await ask(neighbour, gateV4, { source, key: testKeys.wrong })).status,
			401,
		);
		t.equal((await ask(neighbour, gateV4, { source, key })).status, 200);
		await becomes(
			t,
			standIn.calls,
			["GET /api/tags"],
			"Ollama saw what had a key and nothing else",
		);
	},
);

import t, { type Test } from "tap";
import { generateKey } from "../../src/keys/newKey.ts";
import { testKeys } from "../support/gate.ts";
import { startLocalApi, whoIsNode } from "../support/localApi.ts";
import {
	addresses,
	ask,
	becomes,
	gateV4,
	gateV6,
	joinTailnet,
	makeNamespace,
	network,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";

t.jobs = 2;

const key = testKeys.owner;
const { peer: peerAddresses } = addresses;

/** A server on a tailnet, a peer, and a tailscaled that says who that is. */
async function startServer(t: Test, config: Record<string, unknown> = {}) {
	const server = await makeNamespace(t);
	const peer = await makeNamespace(t);
	await joinTailnet(server, peer);
	await startStandInProcess(server);
	const api = await startLocalApi(t);
	const node = whoIsNode({
		name: "phone",
		addresses: [peerAddresses.v4, peerAddresses.v6],
	});
	for (const address of [peerAddresses.v4, peerAddresses.v6])
		api.nodes.set(address, node);
	const { log } = await startDaemon(t, server, {
		identity: { socket: api.socket },
		limits: { authFailures: { max: 3 } },
		...config,
	});
	await log.seen(({ msg }) => msg === "started");
	return { peer, api, log };
}

t.test(
	"who is locked out at one address of a device is so at its other, identity looked at or not",
	network(),
	async (t) => {
		for (const [guessed, other] of [
			[gateV4, gateV6],
			[gateV6, gateV4],
		] as const) {
			const { peer, api } = await startServer(t);
			for (let guess = 0; guess < 3; guess += 1)
				t.equal((await ask(peer, guessed, { key: generateKey() })).status, 401);
			t.equal((await ask(peer, guessed, { key })).status, 429);
			await becomes(
				t,
				async () => (await ask(peer, other, { key })).status,
				429,
				"the other is locked out too",
			);
			t.equal(api.calls.length, 1, "tailscaled was asked once");
		}
	},
);

t.test(
	"guesses spread over both addresses of a device are added up",
	network(),
	async (t) => {
		const { peer, api } = await startServer(t);
		await ask(peer, gateV4, { key: generateKey() });
		await api.called(1);
		await ask(peer, gateV6, { key: generateKey() });
		await ask(peer, gateV4, { key: generateKey() });
		await becomes(
			t,
			async () => [
				(await ask(peer, gateV4, { key })).status,
				(await ask(peer, gateV6, { key })).status,
			],
			[429, 429],
			"three in all",
		);
	},
);

t.test(
	"a tailscaled that never answers holds up no refusal, and an address counts by itself",
	network(),
	async (t) => {
		const { peer, api } = await startServer(t);
		api.misbehave = () => "hang";
		for (let guess = 0; guess < 3; guess += 1)
			t.equal((await ask(peer, gateV4, { key: generateKey() })).status, 401);
		t.equal((await ask(peer, gateV4, { key })).status, 429);
		t.equal((await ask(peer, gateV6, { key })).status, 200);
		t.ok(api.calls.length > 0, "it was asked");
	},
);

t.test(
	"a device that tailscaled names with others' addresses locks nobody else out",
	network(),
	async (t) => {
		const { peer, api } = await startServer(t);
		// What it says of this address is about another.
		api.nodes.set(
			peerAddresses.v4,
			whoIsNode({ addresses: [peerAddresses.v6] }),
		);
		for (let guess = 0; guess < 3; guess += 1)
			await ask(peer, gateV4, { key: generateKey() });
		await api.called(1);
		t.equal((await ask(peer, gateV4, { key })).status, 429);
		t.equal((await ask(peer, gateV6, { key })).status, 200);
	},
);

import { chmod, writeFile } from "node:fs/promises";
import path from "node:path";
import t, { type Test } from "tap";
import type {
	TailscaleNode,
	WhoisAnswer,
} from "../../src/tailscale/localApi.ts";
import {
	createWhois,
	type Whois,
	type WhoisOptions,
} from "../../src/tailscale/whois.ts";
import { eventually, temporaryFolder } from "../support/gate.ts";
import {
	type LocalApi,
	type LocalApiMisbehaviour,
	loggedOutStatus,
	type NodeOptions,
	runningStatus,
	startLocalApi,
	type WhoIsResponse,
	whoIsNode,
} from "../support/localApi.ts";

const peer = "100.101.102.105";
const otherPeer = "100.101.102.106";

/** A stand-in that knows one laptop, and a client of it whose clock stands still. */
async function start(t: Test, options: Partial<WhoisOptions> = {}) {
	const api = await startLocalApi(t);
	api.nodes.set(peer, whoIsNode());
	const clock = { ms: 1_000 };
	const whois = createWhois({
		socket: api.socket,
		nowMs: () => clock.ms,
		timeoutMs: 60_000,
		...options,
	});
	return { api, clock, whois };
}

/** Who the stand-in's answer is taken for. */
async function identify(
	t: Test,
	answer: NodeOptions | WhoIsResponse,
): Promise<TailscaleNode> {
	const { api, whois } = await start(t);
	api.nodes.set(peer, "UserProfile" in answer ? answer : whoIsNode(answer));
	return nodeOf(await whois.lookup(peer, 50_000));
}

function nodeOf(answer: WhoisAnswer): TailscaleNode {
	if (answer.kind !== "node") throw new Error(JSON.stringify(answer));
	return answer.node;
}

function reasonOf(answer: { kind: string; reason?: string }): string {
	return answer.reason ?? `no reason: ${answer.kind}`;
}

/** What was asked about, oldest first. */
function askedFor({ calls }: LocalApi): (string | null)[] {
	return calls.map(({ addr }) => addr);
}

/** Answers of every kind that leave nobody in, and what each is taken for. */
const failures: readonly [LocalApiMisbehaviour, WhoisAnswer["kind"], RegExp][] =
	[
		["denied", "refused", /answered 403: whois access denied$/],
		["no-backend", "refused", /answered 500: server has no local backend$/],
		["wrong-server", "refused", /answered 404: 404 page not found$/],
		["redirect", "refused", /answered 302/],
		["garbage", "unreachable", /Parse Error/],
		["not-json", "unreachable", /not LocalAPI .*not valid JSON/],
		["wrong-shape", "unreachable", /not LocalAPI .*Node is not an object/],
		["upgrade", "unreachable", /closed the connection without an answer/],
		["hang", "unreachable", /did not answer on .* in 50 ms/],
		["stall", "unreachable", /did not answer on .* in 50 ms/],
		["endless", "unreachable", /longer than 1048576 bytes/],
		["truncated", "unreachable", /aborted/],
		["reset", "unreachable", /socket hang up/],
	];

t.test("a user's node has its names, its owner and no tags", async (t) => {
	t.strictSame(await identify(t, {}), {
		name: "laptop",
		fqdn: "laptop.tail1234.ts.net",
		addresses: ["100.101.102.105", "fd7a:115c:a1e0::6633:6669"],
		stableId: "nlaptopCNTRL",
		user: "me@example.com",
		tags: [],
		isShared: false,
		capabilities: new Map(),
	});
});

t.test(
	"a node of another tailnet is told by what the control server says of it, whatever its name",
	async (t) => {
		for (const node of [{ Hostinfo: { ShareeNode: true } }, { Sharer: 4242 }])
			t.equal((await identify(t, { node })).isShared, true);
		for (const node of [
			{ Hostinfo: null },
			{ Hostinfo: { ShareeNode: false } },
			{ Sharer: 0 },
		])
			t.equal((await identify(t, { node })).isShared, false);
	},
);

t.test("a tagged node has tags and no owner", async (t) => {
	const { user, tags } = await identify(t, {
		tags: ["tag:client", "tag:lab-1"],
	});
	t.equal(user, undefined);
	t.strictSame(tags, ["tag:client", "tag:lab-1"]);
});

t.test("a tagged node has no owner whoever its profile names", async (t) => {
	const tagged = whoIsNode({ tags: ["tag:client"] });
	const { user } = await identify(t, {
		...tagged,
		UserProfile: { ...tagged.UserProfile, LoginName: "me@example.com" },
	});
	t.equal(user, undefined);
});

t.test(
	"tagged-devices is not a user even where the tags are not told",
	async (t) => {
		const { user, tags } = await identify(t, { user: "tagged-devices" });
		t.equal(user, undefined);
		t.strictSame(tags, []);
	},
);

t.test("capabilities carry the policy's JSON as it is", async (t) => {
	const { capabilities } = await identify(t, {
		capMap: {
			"example.com/cap/llamagate": [
				{ scopes: ["infer"], models: ["qwen3:*"] },
				"text",
				3,
			],
			"https://tailscale.com/cap/file-send": null,
			...(JSON.parse('{ "__proto__": ["a name like others"] }') as object),
		},
	});
	t.strictSame(
		[...capabilities],
		[
			[
				"example.com/cap/llamagate",
				[{ scopes: ["infer"], models: ["qwen3:*"] }, "text", 3],
			],
			["https://tailscale.com/cap/file-send", []],
			["__proto__", ["a name like others"]],
		],
	);
});

t.test(
	"a node that another tailnet shares is never called by its short name",
	async (t) => {
		const { name, fqdn } = await identify(t, {
			name: "laptop",
			tailnet: "tail9999.ts.net",
		});
		t.equal(name, "laptop.tail9999.ts.net");
		t.equal(fqdn, "laptop.tail9999.ts.net");
	},
);

t.test(
	"a node without a MagicDNS name is not called what it calls itself",
	async (t) => {
		const { Node, ...rest } = whoIsNode();
		const { name, fqdn, stableId } = await identify(t, {
			...rest,
			Node: { ...Node, Name: "", ComputedName: "server" },
		});
		t.strictSame([name, fqdn, stableId], ["", "", "nlaptopCNTRL"]);
	},
);

t.test("addresses that are not plainly a node's are left out", async (t) => {
	const { Node, ...rest } = whoIsNode();
	for (const [told, read] of [
		[null, []],
		[undefined, []],
		["100.64.0.7/32", []],
		[[7, null, "", "100.64.0.7", "100.64.0.0/24", "x/32"], []],
		[
			["100.64.0.7/32", "FD7A:115C:A1E0:0::7/128"],
			["100.64.0.7", "fd7a:115c:a1e0::7"],
		],
	] as const) {
		const { addresses } = await identify(t, {
			...rest,
			Node: { ...Node, Addresses: told },
		});
		t.strictSame(addresses, read, JSON.stringify(told));
	}
});

t.test("an address that belongs to no node is unknown", async (t) => {
	const { whois } = await start(t);
	t.strictSame(await whois.lookup(otherPeer, 50_000), { kind: "unknown" });
});

t.test(
	"the request is the one that tailscaled's own client sends",
	async (t) => {
		const { api, whois } = await start(t);
		await whois.lookup(peer, 50_000);
		const [call] = api.calls;
		t.equal(call?.method, "GET");
		t.equal(
			call?.target,
			"/localapi/v0/whois?proto=tcp&addr=100.101.102.105%3A0",
		);
		t.strictSame(call?.rawHeaders, [
			"host",
			"local-tailscaled.sock",
			"connection",
			"close",
		]);
	},
);

t.test(
	"tailscaled is never told the port of a Tailscale address: of one that it does not know it would hold its lock for 180 ms",
	async (t) => {
		const { api, whois } = await start(t);
		for (const address of [
			"100.101.102.105",
			"::ffff:100.101.102.106",
			"fd7a:115c:a1e0::6633:6669",
			"FD7A:115C:A1E0:0::7",
			"192.168.1.20",
		])
			await whois.lookup(address, 50_000);
		t.strictSame(askedFor(api), [
			"100.101.102.105:0",
			"100.101.102.106:0",
			"[fd7a:115c:a1e0::6633:6669]:0",
			"[fd7a:115c:a1e0::7]:0",
			"192.168.1.20:0",
		]);
	},
);

t.test(
	"a connection that tailscaled forwards from loopback is told by its port, each time anew",
	async (t) => {
		const { api, whois } = await start(t);
		api.nodes.set("127.0.0.1:40000", whoIsNode({ name: "phone" }));
		api.nodes.set("[::1]:40000", whoIsNode({ name: "tablet" }));
		const nameAt = async (address: string, port: number) => {
			const answer = await whois.lookup(address, port);
			return answer.kind === "node" ? answer.node.name : answer.kind;
		};
		t.equal(await nameAt("127.0.0.1", 40_000), "phone");
		t.equal(await nameAt("::ffff:127.0.0.1", 40_000), "phone");
		t.equal(await nameAt("::1", 40_000), "tablet");
		t.equal(await nameAt("127.0.0.1", 40_001), "unknown");
		t.equal(await nameAt("127.0.0.1", 40_001), "unknown");
		t.strictSame(askedFor(api), [
			"127.0.0.1:40000",
			"127.0.0.1:40000",
			"[::1]:40000",
			"127.0.0.1:40001",
			"127.0.0.1:40001",
		]);
	},
);

t.test(
	"what is not a remote end of a connection is refused and not asked about",
	async (t) => {
		const { api, whois } = await start(t);
		const ends: [string, number][] = [
			["", 1],
			["laptop", 1],
			["fe80::1%eth0", 1],
			["100.101.102.105:80", 1],
			["100.101.102.105&addr=100.101.102.106", 1],
			["\u001b[31m\n", 1],
			[peer, -1],
			[peer, 65_536],
			[peer, 1.5],
			[peer, Number.NaN],
		];
		for (const [address, port] of ends) {
			const answer = await whois.lookup(address, port);
			t.equal(answer.kind, "refused", `${JSON.stringify(address)} ${port}`);
			t.match(reasonOf(answer), /^not asked: [\x20-\x7e]+$/);
		}
		t.strictSame(api.calls, []);
	},
);

for (const [misbehaviour, kind, reason] of failures) {
	const isSilent = misbehaviour === "hang" || misbehaviour === "stall";

	t.test(`"${misbehaviour}" is ${kind}`, async (t) => {
		const { api, whois } = await start(t, {
			timeoutMs: isSilent ? 50 : 60_000,
		});
		api.misbehave = () => misbehaviour;
		const answer = await whois.lookup(peer, 50_000);
		t.equal(answer.kind, kind);
		t.match(reasonOf(answer), reason);
		t.match(reasonOf(answer), /^[\x20-\x7e]{1,200}$/, "one printable line");
		await eventually(() => api.openConnections() === 0);
	});

	t.test(`a status that is "${misbehaviour}" is ${kind}`, async (t) => {
		const { api, whois } = await start(t, {
			timeoutMs: isSilent ? 50 : 60_000,
		});
		api.misbehave = () => misbehaviour;
		const answer = await whois.status();
		t.equal(answer.kind, kind);
	});
}

t.test("a field of another type makes the reply nonsense", async (t) => {
	const { Node, UserProfile, CapMap } = whoIsNode();
	const replies: object[] = [
		{ Node: { ...Node, StableID: "" }, UserProfile, CapMap },
		{ Node: { ...Node, StableID: 7 }, UserProfile, CapMap },
		{ Node: { ...Node, Tags: "tag:client" }, UserProfile, CapMap },
		{ Node: { ...Node, Tags: [1] }, UserProfile, CapMap },
		{ Node: [], UserProfile, CapMap },
		{ Node, UserProfile: null, CapMap },
		{ Node, UserProfile: { LoginName: ["me"] }, CapMap },
		{ Node, UserProfile, CapMap: [] },
		{ Node, UserProfile, CapMap: { "example.com/cap": {} } },
		[],
	];
	const { api, whois, clock } = await start(t);
	for (const reply of replies) {
		api.nodes.set(peer, reply as WhoIsResponse);
		const answer = await whois.lookup(peer, 50_000);
		t.equal(answer.kind, "unreachable", JSON.stringify(reply).slice(0, 60));
		clock.ms += 250;
	}
});

t.test("a socket that is not there is unreachable, and says so", async (t) => {
	const folder = await temporaryFolder(t);
	const ask = (socket: string) => createWhois({ socket }).lookup(peer, 1);
	const missing = await ask(path.join(folder, "none.sock"));
	t.equal(missing.kind, "unreachable");
	t.match(reasonOf(missing), /found no socket .*none\.sock/);

	const file = path.join(folder, "file.sock");
	await writeFile(file, "");
	t.match(reasonOf(await ask(file)), /nobody listens on .*file\.sock/);
	const tooLong = await ask(path.join(folder, "x".repeat(200)));
	t.equal(tooLong.kind, "unreachable");
	t.match(reasonOf(await ask("")), /no path .* is configured/);
});

t.test("a socket that may not be opened is unreachable", async (t) => {
	const { api, whois } = await start(t);
	await chmod(api.socket, 0);
	// root may open everything
	const isRoot = process.geteuid?.() === 0;
	if (isRoot) process.seteuid?.(65_534);
	const asked = whois.lookup(peer, 50_000);
	if (isRoot) process.seteuid?.(0);
	const answer = await asked;
	t.equal(answer.kind, "unreachable");
	t.match(reasonOf(answer), /may not be opened by this user \(EACCES\)/);
	t.strictSame(api.calls, []);
});

t.test("a node and an unknown are remembered for cacheMs", async (t) => {
	const { api, clock, whois } = await start(t, { cacheMs: 10_000 });
	const first = await whois.lookup(peer, 50_000);
	await whois.lookup(otherPeer, 50_000);
	api.nodes.set(peer, whoIsNode({ tags: ["tag:new"] }));
	api.nodes.set(otherPeer, whoIsNode({ name: "phone" }));

	clock.ms += 9_999;
	t.equal(await whois.lookup(peer, 50_001), first, "whatever the port");
	t.equal(await whois.lookup(`::ffff:${peer}`, 50_002), first);
	t.equal((await whois.lookup(otherPeer, 50_001)).kind, "unknown");
	t.equal(api.calls.length, 2);

	clock.ms += 1;
	t.strictSame(nodeOf(await whois.lookup(peer, 50_001)).tags, ["tag:new"]);
	t.equal(nodeOf(await whois.lookup(otherPeer, 50_001)).name, "phone");
	t.equal(api.calls.length, 4);
});

t.test("with cacheMs 0 nothing is remembered", async (t) => {
	const { api, whois } = await start(t, { cacheMs: 0 });
	await whois.lookup(peer, 50_000);
	await whois.lookup(peer, 50_000);
	t.equal(api.calls.length, 2);
});

t.test("a refusal is not remembered", async (t) => {
	const { api, whois } = await start(t);
	api.misbehave = () => "denied";
	t.equal((await whois.lookup(peer, 50_000)).kind, "refused");
	api.misbehave = () => undefined;
	t.equal((await whois.lookup(peer, 50_000)).kind, "node");
});

t.test(
	"while tailscaled cannot be reached it is tried every 250 ms, whoever asks",
	async (t) => {
		const { api, clock, whois } = await start(t);
		api.misbehave = () => "reset";
		const first = await whois.lookup(peer, 50_000);
		t.equal(first.kind, "unreachable");
		api.misbehave = () => undefined;

		clock.ms += 249;
		t.equal(await whois.lookup(peer, 50_000), first);
		t.equal(await whois.lookup(otherPeer, 50_000), first);
		t.equal(await whois.lookup("127.0.0.1", 40_000), first);
		t.equal(api.calls.length, 1);

		clock.ms += 1;
		t.equal((await whois.lookup(peer, 50_000)).kind, "node");
		t.equal((await whois.lookup(otherPeer, 50_000)).kind, "unknown");
	},
);

t.test("what is remembered outlives an outage", async (t) => {
	const { api, clock, whois } = await start(t, { cacheMs: 10_000 });
	const known = await whois.lookup(peer, 50_000);
	await api.close();
	t.equal((await whois.lookup(otherPeer, 50_000)).kind, "unreachable");
	t.equal(await whois.lookup(peer, 50_000), known);

	clock.ms += 10_000;
	t.equal((await whois.lookup(peer, 50_000)).kind, "unreachable");
});

t.test("a tailscaled that restarts is found again", async (t) => {
	const { api, clock, whois } = await start(t, { cacheMs: 0 });
	t.equal((await whois.lookup(peer, 50_000)).kind, "node");
	await api.close();
	t.equal((await whois.lookup(peer, 50_000)).kind, "unreachable");

	const again = await startLocalApi(t, api.socket);
	again.nodes.set(peer, whoIsNode());
	clock.ms += 250;
	t.equal((await whois.lookup(peer, 50_000)).kind, "node");
});

t.test("nonsense about one peer keeps nobody else out", async (t) => {
	const { api, clock, whois } = await start(t);
	api.misbehave = ({ addr }) =>
		addr === `${otherPeer}:0` ? "endless" : undefined;
	const first = await whois.lookup(otherPeer, 50_000);
	t.equal(first.kind, "unreachable");
	t.equal((await whois.lookup(peer, 50_000)).kind, "node");

	t.equal(await whois.lookup(otherPeer, 50_000), first);
	t.equal(api.calls.length, 2, "and is not asked for again at once");
	clock.ms += 250;
	await whois.lookup(otherPeer, 50_000);
	t.equal(api.calls.length, 3);
});

t.test("everybody who waits for an address shares one question", async (t) => {
	const { api, whois } = await start(t, { cacheMs: 0 });
	api.misbehave = () => "hold";
	const asked = [
		whois.lookup(peer, 50_000),
		whois.lookup(peer, 50_001),
		whois.lookup(`::ffff:${peer}`, 50_002),
	];
	const other = whois.lookup(otherPeer, 50_003);
	await api.called(2);
	api.release();
	const [first, ...rest] = await Promise.all(asked);
	t.equal(first?.kind, "node");
	for (const answer of rest) t.equal(answer, first);
	t.equal((await other).kind, "unknown");
	t.equal(api.calls.length, 2);

	api.misbehave = () => undefined;
	await whois.lookup(peer, 50_000);
	t.equal(api.calls.length, 3, "and the next one asks anew");
});

t.test("everybody who waits for a question in vain is told", async (t) => {
	const { api, whois } = await start(t, { timeoutMs: 50 });
	api.misbehave = () => "hang";
	const answers = await Promise.all(
		Array.from({ length: 20 }, () => whois.lookup(peer, 50_000)),
	);
	t.equal(new Set(answers).size, 1);
	t.equal(answers[0]?.kind, "unreachable");
	t.equal(api.calls.length, 1);
});

t.test(
	"many addresses at once open few connections, and those that queue wait no longer than the others",
	async (t) => {
		const { api, whois } = await start(t, { timeoutMs: 1_000 });
		api.misbehave = () => "hang";
		const answers = Promise.all(lookupMany(whois, 100));
		await api.called(8);
		t.equal(api.openConnections(), 8);
		for (const { kind } of await answers) t.equal(kind, "unreachable");
		await eventually(() => api.openConnections() === 0);
		t.ok(api.calls.length < 100, "what has timed out is not asked any more");
	},
);

t.test("of many addresses the oldest are forgotten", async (t) => {
	const { api, whois } = await start(t);
	await Promise.all(lookupMany(whois, 4096));
	t.equal(api.calls.length, 4096);
	await whois.lookup(addressOf(0), 1);
	t.equal(api.calls.length, 4096, "4096 are remembered");

	await whois.lookup(peer, 1);
	await whois.lookup(addressOf(4095), 1);
	t.equal(api.calls.length, 4097);
	await whois.lookup(addressOf(0), 1);
	t.equal(api.calls.length, 4098, "the first has made room");
});

function lookupMany(whois: Whois, count: number): Promise<WhoisAnswer>[] {
	return Array.from({ length: count }, (_, i) => whois.lookup(addressOf(i), 1));
}

function addressOf(i: number): string {
	return `100.70.${i >> 8}.${i & 255}`;
}

t.test("the status of a host that is up", async (t) => {
	const { api, whois } = await start(t);
	t.strictSame(await whois.status(), {
		kind: "status",
		status: {
			backendState: "Running",
			version: "1.103.0-dev20260822-tde9ec7ee2",
			userspace: false,
			isTagged: false,
			addresses: ["100.101.102.104", "fd7a:115c:a1e0::6633:6668"],
			dnsName: "server.tail1234.ts.net",
			keyExpiresAtMs: Date.UTC(2027, 2, 1, 9, 30),
			magicDns: true,
			certDomains: ["server.tail1234.ts.net"],
			health: [],
		},
	});
	t.equal(api.calls[0]?.target, "/localapi/v0/status?peers=false");
});

t.test("the status of a host that is logged out", async (t) => {
	const { api, whois } = await start(t);
	api.status = loggedOutStatus();
	t.strictSame(await whois.status(), {
		kind: "status",
		status: {
			backendState: "NeedsLogin",
			version: "1.103.0-dev20260822-tde9ec7ee2",
			userspace: false,
			isTagged: false,
			addresses: [],
			dnsName: "",
			keyExpiresAtMs: undefined,
			magicDns: undefined,
			certDomains: [],
			health: ["You are logged out."],
		},
	});
});

t.test(
	"a status is asked for each time, and no nonsense is taken",
	async (t) => {
		const { api, whois } = await start(t);
		await whois.status();
		api.status = { ...runningStatus(), TUN: false };
		const userspace = await whois.status();
		t.ok(userspace.kind === "status" && userspace.status.userspace);

		api.status = { ...runningStatus(), Self: { KeyExpiry: "soon" } };
		t.match(reasonOf(await whois.status()), /KeyExpiry is not a time/);
		api.status = { ...runningStatus(), Self: null };
		t.match(reasonOf(await whois.status()), /Self is not an object/);
	},
);

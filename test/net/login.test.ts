import t, { type Test } from "tap";
import type { Result } from "../../src/report/result.ts";
import { testKeys } from "../support/gate.ts";
import {
	type LocalApiMisbehaviour,
	type NodeOptions,
	startLocalApi,
	whoIsNode,
} from "../support/localApi.ts";
import {
	addresses,
	gateV4,
	gateV6,
	joinTailnet,
	makeNamespace,
	type Namespace,
	network,
	startDaemon,
	startStandInProcess,
} from "../support/namespaces.ts";
import { program } from "../support/program.ts";

t.jobs = 2;

const me = "me@example.com";
const peerAddresses = [addresses.peer.v4, addresses.peer.v6];
const serverAddresses = [addresses.server.v4, addresses.server.v6];

interface Options {
	/** The peer, as tailscaled knows it. */
	readonly node?: NodeOptions;
	readonly rules?: readonly object[];
	readonly config?: Record<string, unknown>;
	readonly launcher?: readonly string[];
	readonly tokenIntervalMs?: number;
}

/** A server on a tailnet where a device's login may stand for a key, and a peer. */
async function startServer(
	t: Test,
	{
		node = {},
		rules = [{ users: [me] }],
		config = {},
		launcher = [],
		...rest
	}: Options = {},
) {
	const server = await makeNamespace(t);
	const peer = await makeNamespace(t);
	await joinTailnet(server, peer);
	const ollama = await startStandInProcess(server, rest);
	const api = await startLocalApi(t);
	const answer = whoIsNode({ addresses: peerAddresses, ...node });
	for (const address of peerAddresses) api.nodes.set(address, answer);
	const self = whoIsNode({ name: "server", addresses: serverAddresses });
	for (const address of serverAddresses) api.nodes.set(address, self);
	const settings = (changes: Record<string, unknown> = {}) => ({
		identity: { mode: "login", socket: api.socket, rules, ...changes },
		limits: { authFailures: { max: 3 } },
		...config,
	});
	const daemon = await startDaemon(t, server, settings(), launcher);
	await daemon.log.seen(({ msg }) => msg === "started");
	return { server, peer, api, ollama, settings, ...daemon };
}

interface Call {
	readonly path?: string;
	readonly body?: string;
	readonly headers?: readonly string[];
	readonly to?: string;
}

async function call(
	from: Namespace,
	{ path = "/api/tags", body, headers = [], to = gateV4 }: Call = {},
): Promise<{ status: number; body: string }> {
	const { stdout } = await from.run(
		...["curl", "-sS", "-g", "--max-time", "30", "-w", "\n%{http_code}"],
		...headers.flatMap((line) => ["-H", line]),
		...(body === undefined ? [] : ["--data-binary", body]),
		`http://${to}${path}`,
	);
	const at = stdout.lastIndexOf("\n");
	return { status: Number(stdout.slice(at + 1)), body: stdout.slice(0, at) };
}

const chat = (model: string) => ({
	path: "/api/chat",
	body: JSON.stringify({ model, messages: [], stream: false }),
});
const bearer = (key: string) => `Authorization: Bearer ${key}`;

t.test(
	"whose device a rule names needs no key, reads and infers, and is not named in the log",
	network(),
	async (t) => {
		const { peer, log } = await startServer(t);
		for (const to of [gateV4, gateV6])
			t.equal((await call(peer, { to })).status, 200);
		t.equal((await call(peer, chat("qwen3:8b"))).status, 200);
		const chunked = {
			...chat("qwen3:8b"),
			headers: ["Transfer-Encoding: chunked"],
		};
		t.equal((await call(peer, chunked)).status, 200);
		const refused = await call(peer, {
			path: "/api/copy",
			body: '{"source":"a","destination":"b"}',
		});
		t.equal(refused.status, 403, "manage is for who is given it");
		t.match(await log.seen(({ route }) => route === "POST /api/copy"), {
			key: "(login)",
			node: "laptop",
			userBy: "login",
			reason: "scope",
		});
		t.notOk(JSON.stringify(log.all).includes("example.com"));
	},
);

t.test(
	"the log names a device's owner where that is wanted",
	network(),
	async (t) => {
		const { peer, log } = await startServer(t, {
			config: { log: { people: "on" } },
		});
		await call(peer);
		t.match(await log.seen(({ msg }) => msg === "request"), {
			key: "(login)",
			userBy: "login",
			person: me,
		});
	},
);

t.test("rules narrow models and scopes, and add up", network(), async (t) => {
	const { peer } = await startServer(t, {
		rules: [
			{
				users: ["*@example.com"],
				scopes: ["read", "infer"],
				models: ["qwen3:*"],
			},
			{ users: ["other@example.com"], scopes: ["manage"] },
			{ users: [me], scopes: ["manage"], models: ["nomic-embed-text"] },
		],
	});
	t.equal((await call(peer, chat("qwen3:8b"))).status, 200);
	const refused = await call(peer, chat("llama3.2:3b"));
	t.equal(refused.status, 403);
	const { models } = JSON.parse((await call(peer)).body) as {
		models: { name: string }[];
	};
	t.strictSame(
		models.map(({ name }) => name),
		["qwen3:8b"],
	);
	const copy = (source: string, destination: string) => ({
		path: "/api/copy",
		body: JSON.stringify({ source, destination }),
	});
	t.equal((await call(peer, copy("qwen3:8b", "x"))).status, 403);
	const own = copy("nomic-embed-text", "nomic-embed-text:latest");
	t.equal((await call(peer, own)).status, 200);
});

t.test(
	"whoever else comes without a key is refused as ever, and nothing of theirs reaches Ollama",
	network(),
	async (t) => {
		const { peer, api, ollama, log, settings, reconfigure } =
			await startServer(t);
		const strangers: Record<string, NodeOptions | null> = {
			"somebody else": { user: "eve@example.com" },
			"a longer name": { user: "some@example.com" },
			"a name that begins alike": { user: `${me}.evil.org` },
			"a tagged device": { tags: ["tag:server"] },
			"a device that is shared in": { tailnet: "tail9.ts.net" },
			"a device of whom this server is shared with": {
				node: {
					Name: "",
					ComputedName: "device-of-shared-to-user",
					Hostinfo: { Hostname: "device-of-shared-to-user", ShareeNode: true },
				},
			},
			"the same, under a name of this tailnet": {
				node: { Hostinfo: { Hostname: "laptop", ShareeNode: true } },
			},
			"a device with a name and no tailnet": { node: { Name: "laptop." } },
			"a device of another tailnet, under a short name": {
				node: { Name: "laptop.tail9.ts.net." },
			},
			"a device without a name": { node: { Name: "" } },
			"a device that somebody shares": { node: { Sharer: 4242 } },
			"no device": null,
			"an address that is not the device's": {
				addresses: ["100.101.102.199"],
			},
			"a device without addresses": { addresses: [] },
		};
		/** What tailscaled said is forgotten with a reload. */
		const reload = async (changes?: Record<string, unknown>) => {
			const before = log.all.length;
			await reconfigure(settings(changes));
			await log.seen(
				(line) => log.all.indexOf(line) >= before && line.msg === "reloaded",
			);
		};
		const refusedAll = async (what: string) => {
			for (const path of ["/api/tags", "/no/such/path"])
				t.equal((await call(peer, { path })).status, 401, what);
			t.equal((await call(peer, chat("qwen3:8b"))).status, 401, what);
			t.strictSame(ollama.calls(), [], what);
		};
		for (const [what, node] of Object.entries(strangers)) {
			for (const address of peerAddresses)
				if (node === null) api.nodes.delete(address);
				else
					api.nodes.set(
						address,
						whoIsNode({ addresses: peerAddresses, ...node }),
					);
			await reload();
			await refusedAll(what);
		}
		const own = whoIsNode({ addresses: peerAddresses });
		for (const address of peerAddresses) api.nodes.set(address, own);
		for (const mode of ["log", "off", "require"]) {
			await reload({ mode });
			await refusedAll(`mode ${mode}`);
		}
		await reload();
		t.equal((await call(peer)).status, 200, "and it was for that alone");
		const headers = [bearer(testKeys.reader)];
		t.equal((await call(peer, { headers })).status, 200, "with a key");
	},
);

const misbehaviours: readonly LocalApiMisbehaviour[] = [
	...(["denied", "no-backend", "garbage", "not-json", "wrong-shape"] as const),
	...(["wrong-server", "redirect", "hang", "truncated", "reset"] as const),
];

t.test(
	"a tailscaled that fails in any way lets nobody in without a key",
	network(),
	async (t) => {
		const { peer, ollama, api, reconfigure, settings, log } =
			await startServer(t);
		for (const misbehaviour of misbehaviours) {
			api.misbehave = () => misbehaviour;
			const before = log.all.length;
			await reconfigure(settings());
			await log.seen(
				(line) => log.all.indexOf(line) >= before && line.msg === "reloaded",
			);
			const { status, body } = await call(peer);
			t.equal(status, 401, misbehaviour);
			t.match(body, /a key is needed/);
		}
		t.strictSame(ollama.calls(), []);
		const headers = [bearer(testKeys.reader)];
		t.equal((await call(peer, { headers })).status, 200, "with a key");
	},
);

t.test("a key that is shown counts before the login", network(), async (t) => {
	const { peer, ollama } = await startServer(t);
	const reader = { ...chat("qwen3:8b"), headers: [bearer(testKeys.reader)] };
	t.equal((await call(peer, reader)).status, 403, "the key's scopes");
	for (const headers of [
		["Authorization: Digest x"],
		[bearer(testKeys.reader), `x-api-key: ${testKeys.owner}`],
		["x-api-key: ollama"],
		["Authorization: Bearer ollama"],
	])
		t.equal((await call(peer, { headers })).status, 401, headers.join());
	t.strictSame(ollama.calls(), []);
	t.equal(
		(await call(peer, { headers: ["Authorization: Bearer"] })).status,
		200,
	);
});

t.test(
	"wrong keys of such a device are counted, and lock out its login too",
	network(),
	async (t) => {
		const { peer } = await startServer(t);
		for (const guess of ["1", "2", "3"]) {
			const headers = [bearer(guess.repeat(64))];
			t.equal((await call(peer, { headers })).status, 401);
		}
		t.equal((await call(peer)).status, 429);
	},
);

t.test(
	"a web page in the browser of such a device gets nothing",
	network(),
	async (t) => {
		const { peer, ollama, log } = await startServer(t, {
			config: { cors: { origins: ["https://chat.example"] } },
		});
		for (const headers of [
			["Origin: http://evil.example"],
			["Origin: null"],
			["Origin: http://evil.example:11434", "Host: evil.example:11434"],
			["Origin: https://chat.example", "Origin: http://evil.example"],
			["Host: evil.example:11434"],
			["Host: server.evil.example"],
			["Host: laptop:11434"],
			["Host: localhost.evil"],
			["Host: 100.101.102.104.evil.example"],
			["Host: [::1].evil.example"],
			["Host: ollama"],
			["Host: server.tail1234.ts.net.evil.example"],
			["Host: x@100.101.102.104"],
			["Host;"],
		]) {
			const { status } = await call(peer, { headers });
			t.ok([400, 401].includes(status), `${headers.join(", ")}: ${status}`);
			const inferring = await call(peer, { ...chat("qwen3:8b"), headers });
			t.ok([400, 401].includes(inferring.status), headers.join(", "));
		}
		t.strictSame(ollama.calls(), []);
		for (const headers of [
			["Host: server:11434"],
			["Host: SERVER.tail1234.ts.net:11434"],
			["Host: server.tail1234.ts.net."],
			["Host: 100.101.102.104:11434"],
			["Host: [fd7a:115c:a1e0::104]:11434"],
			["Origin: https://chat.example"],
		])
			t.equal((await call(peer, { headers })).status, 200, headers.join());
		t.ok(log.all.length > 0);
	},
);

t.test("no header says whose device it is", network(), async (t) => {
	const { peer, ollama } = await startServer(t, {
		node: { user: "eve@example.com" },
	});
	for (const line of [
		`Tailscale-User-Login: ${me}`,
		`X-Webauth-User: ${me}`,
		`X-Forwarded-User: ${me}`,
		`X-OpenWebUI-User-Email: ${me}`,
		`X-Forwarded-For: ${addresses.server.v4}`,
		`Forwarded: for=${addresses.server.v4}`,
		`X-Real-IP: ${addresses.server.v4}`,
		`Cookie: login=${me}`,
	])
		t.equal((await call(peer, { headers: [line] })).status, 401, line);
	t.strictSame(ollama.calls(), []);
});

t.test(
	"the server itself needs a key: whichever of its users comes from there",
	network(),
	async (t) => {
		const { server, ollama } = await startServer(t);
		for (const to of [gateV4, gateV6]) {
			const { status, body } = await call(server, { to });
			t.equal(status, 401);
			t.match(body, /this server itself needs one/);
		}
		t.strictSame(ollama.calls(), []);
	},
);

t.test(
	"where tailscaled does not know the gate's own address as this server's, nobody is let in by login",
	network(),
	async (t) => {
		const { server, peer, api, ollama, log, settings, reconfigure } =
			await startServer(t);
		// Another tailscaled's address on this host: its own node, to the one that is asked.
		const other = "100.101.102.199";
		await server.ip(`address add ${other}/32 dev lo`);
		api.nodes.set(other, whoIsNode({ name: "server", addresses: [other] }));
		for (const address of serverAddresses) api.nodes.delete(address);
		const before = log.all.length;
		await reconfigure(settings());
		await log.seen(
			(line) => log.all.indexOf(line) >= before && line.msg === "reloaded",
		);
		const { stdout } = await server.run(
			...["curl", "-sS", "--interface", other, "-w", "\n%{http_code}"],
			`http://${gateV4}/api/tags`,
		);
		t.match(stdout, /\n401$/);
		t.equal((await call(peer)).status, 401);
		t.strictSame(ollama.calls(), []);
	},
);

t.test(
	"a login that is held to some models has the option rules of such a key",
	network(),
	async (t) => {
		const { peer } = await startServer(t, {
			rules: [{ users: [me], models: ["qwen3:*"] }],
		});
		const withOptions = (options: object) => ({
			path: "/api/chat",
			body: JSON.stringify({
				model: "qwen3:8b",
				messages: [],
				stream: false,
				options,
			}),
		});
		t.equal((await call(peer, withOptions({ num_ctx: 4096 }))).status, 200);
		t.equal((await call(peer, withOptions({ num_ctx: 1e6 }))).status, 403);
		t.equal((await call(peer, withOptions({ num_gpu: 0 }))).status, 403);
	},
);

t.test(
	"from loopback nobody is let in by login, whatever tailscaled says, and the reply says why",
	network(),
	async (t) => {
		const { server, api, ollama } = await startServer(t, {
			config: {
				listen: { address: "127.0.0.1", port: 11435 },
				sources: ["127.0.0.0/8"],
			},
		});
		api.nodes.get = () => whoIsNode({ addresses: ["127.0.0.1"] });
		const { status, body } = await call(server, { to: "127.0.0.1:11435" });
		t.equal(status, 401);
		t.match(body, /a tailscaled without a tunnel device/);
		t.strictSame(ollama.calls(), []);
	},
);

t.test(
	"a stream is cut when a reload takes its login's rule away",
	network(),
	async (t) => {
		const { peer, log, reconfigure, settings } = await startServer(t, {
			tokenIntervalMs: 5,
		});
		const stream = peer.start(
			...["curl", "-sSN", "-d"],
			'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"options":{"num_predict":1000000}}',
			`http://${gateV4}/api/chat`,
		);
		await new Promise((resolve) => stream.stdout.once("data", resolve));
		await reconfigure(settings({ rules: [{ users: ["other@example.com"] }] }));
		t.match(await log.seen(({ route }) => route === "POST /api/chat"), {
			outcome: "cut",
			reason: "revoked",
			key: "(login)",
		});
		t.equal((await call(peer)).status, 401);
	},
);

t.test("each login has limits of its own", network(), async (t) => {
	const { peer, api } = await startServer(t, {
		rules: [{ users: ["*@example.com"] }],
		config: { limits: { perKey: { requestsPerMinute: 1 } } },
	});
	api.nodes.set(
		addresses.peer.v6,
		whoIsNode({ user: "you@example.com", addresses: [addresses.peer.v6] }),
	);
	t.equal((await call(peer)).status, 200);
	t.equal((await call(peer)).status, 429);
	t.equal((await call(peer, { to: gateV6 })).status, 200);
});

/** Opens so many connections to each of the gate's addresses, asks on each, and leaves. */
const askAndLeave = `
import socket, sys
for address in sys.argv[2:]:
    sockets = [socket.create_connection((address, 11434)) for _ in range(int(sys.argv[1]))]
    for one in sockets:
        one.sendall(b"GET /api/tags HTTP/1.1\\r\\nHost: server\\r\\n\\r\\n")
    for one in sockets:
        one.close()
`;

t.test(
	"who leaves while tailscaled is asked is gone: its connections are not counted as a login's",
	network(),
	async (t) => {
		const { peer, api, log } = await startServer(t, {
			// Room for some 430 connections, and half of that for one login.
			launcher: ["prlimit", "--nofile=512:512"],
			config: { upstream: { maxConnections: 16 } },
		});
		api.misbehave = () => "hold";
		const { code, stderr } = await peer.run(
			...["python3", "-c", askAndLeave, "150"],
			...serverAddresses,
		);
		t.equal(code, 0, stderr);
		const gone = () =>
			log.all.filter(({ outcome }) => outcome === "client_gone");
		await log.seen(() => gone().length === 300);
		api.misbehave = () => undefined;
		api.release();
		t.equal((await call(peer)).status, 200);
	},
);

t.test("a client that waits for 100 Continue gets it", network(), async (t) => {
	const { peer } = await startServer(t);
	const waits = { ...chat("qwen3:8b"), headers: ["Expect: 100-continue"] };
	t.equal((await call(peer, waits)).status, 200);
});

t.test(
	"connect --try from a device that needs no key takes the gate for one, and tries the key",
	network(),
	async (t) => {
		const { peer } = await startServer(t);
		const connect = (key: string) =>
			peer.run(
				...["sh", "-c", 'key=$1; shift; printf %s "$key" | "$@"', "sh", key],
				...[process.execPath, program, "connect", "curl"],
				...["--server", gateV4, "--key-stdin", "--try"],
			);
		const { code, stdout, stderr } = await connect(testKeys.user);
		t.equal(code, 0, stderr);
		t.match(stdout, /first token after \d+ ms, from qwen3:8b/);
		const wrong = await connect(testKeys.wrong);
		t.equal(wrong.code, 1);
		t.match(wrong.stderr, /does not know this key/);
	},
);

t.test(
	"probe from a device that needs no key names login, and goes on to the key",
	network(),
	async (t) => {
		const { peer, ollama } = await startServer(t);
		// As Tailscale gives it, or the way counts as unencrypted and no key is sent.
		const { v4 } = addresses.peer;
		await peer.ip(
			`addr del ${v4}/10 dev tailscale0`,
			`addr add ${v4}/32 dev tailscale0`,
			"route add 100.64.0.0/10 dev tailscale0",
		);
		const { code, stdout } = await peer.run(
			...["env", `LLAMAGATE_KEY=${testKeys.user}`],
			...[process.execPath, program, "probe", `http://${gateV4}`, "--json"],
		);
		t.equal(code, 1, "whether strangers are let in cannot be seen from here");
		const { results } = JSON.parse(stdout) as { results: Result[] };
		const result = (id: string) =>
			results.find((one) => one.id === `probe.${id}`);
		t.match(result("reachable"), {
			state: "ok",
			evidence: [gateV4, "it lets this device in without a key"],
		});
		t.match(result("no-key"), {
			state: "finding",
			evidence: ["the gate lets this device in without a key"],
			fix: /identity\.mode login/,
		});
		t.notMatch(stdout, /llamagate setup/);
		for (const id of ["unknown-paths", "challenge", "refusal-shape"])
			t.match(result(id), { state: "unknown" }, id);
		for (const id of ["wrong-key", "key-accepted", "stream"])
			t.match(result(id), { state: "ok" }, id);
		t.notOk(ollama.calls().some((call) => /pull|copy|delete/.test(call)));
	},
);

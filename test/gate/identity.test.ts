import { once } from "node:events";
import { createServer } from "node:http";
import path from "node:path";
import t from "tap";
import { grantValuesOf, isBoundTo } from "../../src/gate/identity.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import type { TailscaleNode } from "../../src/tailscale/localApi.ts";
import {
	bearer,
	eventually,
	runCli,
	startGate,
	temporaryFolder,
	testKeys,
} from "../support/gate.ts";
import {
	type LocalApiMisbehaviour,
	type NodeOptions,
	startLocalApi,
	whoIsNode,
} from "../support/localApi.ts";

type Tap = Parameters<typeof startGate>[0];

/** A gate before a stand-in tailscaled, in whose eyes every connection here comes from one node, or none. */
async function start(
	t: Tap,
	mode: "log" | "require",
	options: {
		node?: NodeOptions;
		key?: Partial<KeyEntry>;
		misbehave?: LocalApiMisbehaviour;
	},
) {
	const api = await startLocalApi(t);
	const { node, misbehave } = options;
	if (node !== undefined) api.nodes.get = () => whoIsNode(node);
	if (misbehave !== undefined) api.misbehave = () => misbehave;
	const gate = await startGate(t, {
		config: { identity: { mode, socket: api.socket } },
		keys: [{ name: "user", sha256: digestOf(testKeys.user), ...options.key }],
	});
	const send = async (path = "/api/version", body?: string) => {
		const response = await fetch(`${gate.url}${path}`, {
			headers: bearer(testKeys.user),
			...(body === undefined ? {} : { method: "POST", body }),
		});
		return { status: response.status, text: await response.text() };
	};
	return { api, gate, send };
}

t.test("the device is in the log line: node, user, tags", async (t) => {
	const person = await start(t, "log", { node: { name: "laptop" } });
	t.equal((await person.send()).status, 200);
	t.match(await person.gate.logged(({ msg }) => msg === "request"), {
		node: "laptop",
		user: "me@example.com",
		tags: [],
		userBy: "login",
	});
	const machine = await start(t, "log", {
		node: { name: "ci", tags: ["tag:client"] },
	});
	t.equal((await machine.send()).status, 200);
	t.match(await machine.gate.logged(({ msg }) => msg === "request"), {
		node: "ci",
		user: null,
		tags: ["tag:client"],
		userBy: "key",
	});
});

t.test(
	"with log, who is no device of the tailnet is served and noted; with require, refused",
	async (t) => {
		const log = await start(t, "log", {});
		t.equal((await log.send()).status, 200);
		t.match(await log.gate.logged(({ msg }) => msg === "request"), {
			node: null,
			identity: "unknown",
		});
		const require = await start(t, "require", {});
		const { status, text } = await require.send();
		t.equal(status, 403);
		t.match(text, /no device of the tailnet/);
		t.equal(require.gate.standIn.calls.length, 0);
	},
);

for (const misbehave of [
	"denied",
	"garbage",
	"wrong-shape",
	"not-json",
	"hang",
] as const)
	t.test(
		`with require, a tailscaled that answers with "${misbehave}" lets nobody in, and the reply says why`,
		async (t) => {
			const { gate, send } = await start(t, "require", { misbehave });
			const { status, text } = await send();
			t.equal(status, 503);
			t.match(text, /cannot ask tailscaled who you are/);
			t.equal(gate.standIn.calls.length, 0);
			t.match(await gate.logged(({ msg }) => msg === "request"), {
				reason: "identity",
				identity: String,
			});
		},
	);

t.test(
	"a tailscaled that hangs holds up nobody whose identity is not asked",
	async (t) => {
		const { gate, send } = await start(t, "require", { misbehave: "hang" });
		const waiting = send();
		const refused = await fetch(`${gate.url}/api/version`, {
			headers: bearer(testKeys.wrong),
		});
		t.equal(refused.status, 401);
		t.equal((await waiting).status, 503);
	},
);

t.test(
	"with log, a tailscaled that is not there is noted, and bound keys are of no use",
	async (t) => {
		const { send, gate } = await start(t, "log", { misbehave: "denied" });
		t.equal((await send()).status, 200);
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			identity: String,
		});
		const bound = await start(t, "log", {
			misbehave: "denied",
			key: { bind: { nodes: ["laptop"] } },
		});
		t.equal((await bound.send()).status, 503);
	},
);

t.test(
	"a key that is bound to a node, a user or a tag is useless from anywhere else",
	async (t) => {
		const cases: [Partial<KeyEntry>, NodeOptions, number][] = [
			[{ bind: { nodes: ["laptop"] } }, { name: "laptop" }, 200],
			[{ bind: { nodes: ["Laptop"] } }, { name: "laptop" }, 200],
			[
				{ bind: { nodes: ["laptop.tail1234.ts.net"] } },
				{ name: "laptop" },
				200,
			],
			[{ bind: { nodes: ["laptop"] } }, { name: "phone" }, 403],
			[
				{ bind: { nodes: ["laptop"] } },
				{ name: "laptop", tailnet: "evil.ts.net" },
				403,
			],
			[{ bind: { users: ["me@example.com"] } }, { name: "phone" }, 200],
			[
				{ bind: { users: ["me@example.com"] } },
				{ user: "you@example.com" },
				403,
			],
			[{ bind: { users: ["me@example.com"] } }, { tags: ["tag:client"] }, 403],
			[{ bind: { users: ["tagged-devices"] } }, { tags: ["tag:client"] }, 403],
			[
				{ bind: { tags: ["tag:client"] } },
				{ tags: ["tag:other", "tag:client"] },
				200,
			],
			[{ bind: { tags: ["tag:client"] } }, { tags: ["tag:clients"] }, 403],
			[
				{ bind: { nodes: ["desk"], tags: ["tag:client"] } },
				{ name: "desk" },
				200,
			],
		];
		for (const [key, node, status] of cases) {
			const { send, gate } = await start(t, "log", { key, node });
			t.equal(
				(await send()).status,
				status,
				`${JSON.stringify(key.bind)} from ${JSON.stringify(node)}`,
			);
			if (status === 403) t.equal(gate.standIn.calls.length, 0);
		}
	},
);

t.test(
	"a bound key without identity is refused at the start and at a reload",
	async (t) => {
		const { gate } = await start(t, "log", {
			node: {},
			key: { bind: { nodes: ["laptop"] } },
		});
		await gate.writeConfig({ identity: { mode: "off" } });
		const result = await gate.daemon.reload();
		t.match(result, {
			ok: false,
			mistakes: [
				{ path: "identity.mode", message: /"user" is bound to devices/ },
			],
		});
		const { code, stderr } = await runCli([
			"serve",
			"--config",
			gate.configFile,
		]);
		t.equal(code, 78);
		t.match(stderr, /identity\.mode: is "off"/);
	},
);

t.test(
	"a grant of the tailnet's policy narrows a key for its device and never widens it",
	async (t) => {
		const granted = (...values: unknown[]) => ({
			node: { capMap: { "example.com/cap/llamagate": values } } as NodeOptions,
		});
		const chat = (model: string) =>
			[
				"/api/chat",
				JSON.stringify({
					model,
					messages: [{ role: "user", content: "a" }],
					stream: false,
				}),
			] as const;
		const readOnly = await start(t, "log", granted({ scopes: ["read"] }));
		t.equal((await readOnly.send()).status, 200);
		const refused = await readOnly.send(...chat("qwen3:8b"));
		t.equal(refused.status, 403);
		t.match(refused.text, /does not grant \\"infer\\"/);
		t.match(await readOnly.gate.logged(({ reason }) => reason === "identity"), {
			node: "laptop",
			grants: [{ scopes: ["read"] }],
		});
		const wide = await start(
			t,
			"log",
			granted({ scopes: ["read", "infer", "manage"] }),
		);
		t.equal(
			(await wide.send("/api/pull", '{"model":"x"}')).status,
			403,
			"the key has no manage",
		);
		const oneModel = await start(t, "log", granted({ models: ["llama3.2:*"] }));
		t.equal((await oneModel.send(...chat("llama3.2:3b"))).status, 200);
		t.equal((await oneModel.send(...chat("qwen3:8b"))).status, 403);
		t.equal((await oneModel.send("/v1/models/qwen3:8b")).status, 403);
		t.match((await oneModel.send("/api/tags")).text, /llama3\.2/);
		t.notMatch((await oneModel.send("/api/tags")).text, /qwen3:8b/);
		const both = await start(t, "log", {
			...granted({ models: ["*"] }),
			key: { models: ["qwen3:*"] },
		});
		t.equal(
			(await both.send(...chat("llama3.2:3b"))).status,
			403,
			"the key's own models still hold",
		);
		t.equal((await both.send(...chat("qwen3:8b"))).status, 200);
		const apart = await start(
			t,
			"log",
			granted(
				{ scopes: ["read"], models: ["*"] },
				{ scopes: ["infer"], models: ["qwen3:*"] },
			),
		);
		t.equal(
			(await apart.send(...chat("llama3.2:3b"))).status,
			403,
			"two grants do not lend each other their models",
		);
		for (const wrong of [
			{ scopes: "read" },
			{ scopes: ["read"], modells: ["*"] },
			{ models: ["a b"] },
			"read",
			null,
			7,
		]) {
			const { send } = await start(t, "log", granted(wrong));
			t.equal(
				(await send()).status,
				403,
				`${JSON.stringify(wrong)} grants nothing`,
			);
		}
		const none = await start(t, "log", {
			node: { capMap: { "example.com/cap/other": [{}] } },
		});
		t.equal(
			(await none.send()).status,
			200,
			"without a grant nothing is narrowed",
		);
	},
);

t.test(
	"a device without the scope account makes Ollama search no web, though its key has it",
	async (t) => {
		const search = JSON.stringify({
			model: "qwen3:8b",
			max_tokens: 1,
			messages: [{ role: "user", content: "x" }],
			tools: [{ type: "web_search_20250305", name: "web_search" }],
		});
		for (const [scopes, status] of [
			[["infer"], 403],
			[["infer", "account"], 200],
		] as const) {
			const { send } = await start(t, "log", {
				node: { capMap: { "example.com/cap/llamagate": [{ scopes }] } },
				key: { scopes: ["read", "infer", "account"] },
			});
			t.equal((await send("/v1/messages", search)).status, status);
		}
	},
);

t.test(
	"a grant that is too long or too deep grants nothing, and the gate goes on",
	async (t) => {
		const values = {
			// Deeper than JSON.stringify can go.
			deep: `${"[".repeat(20_000)}${"]".repeat(20_000)}`,
			long: JSON.stringify({ models: Array(2_000).fill("qwen3:*") }),
		};
		for (const [what, value] of Object.entries(values)) {
			const { CapMap: _, ...node } = whoIsNode({ name: "laptop" });
			const reply = `${JSON.stringify(node).slice(0, -1)},"CapMap":{"example.com/cap/llamagate":[${value}]}}`;
			const tailscaled = createServer((_req, res) => void res.end(reply));
			const socket = path.join(await temporaryFolder(t), "tailscaled.sock");
			await once(tailscaled.listen(socket), "listening");
			t.teardown(() => tailscaled.close());
			const gate = await startGate(t, {
				config: { identity: { mode: "log", socket } },
				keys: [{ name: "user", sha256: digestOf(testKeys.user) }],
			});
			const response = await fetch(`${gate.url}/api/version`, {
				headers: bearer(testKeys.user),
			});
			t.equal(response.status, 403, what);
			const line = await gate.logged(({ msg }) => msg === "request");
			t.strictSame(line.grants, [null], "what cannot be read is not logged");
		}
	},
);

t.test("names that are missing are never equal", async (t) => {
	const node: TailscaleNode = {
		name: "",
		fqdn: "",
		addresses: [],
		stableId: "n1",
		user: undefined,
		tags: [],
		isShared: false,
		capabilities: new Map(),
	};
	t.notOk(isBoundTo({ nodes: [""], users: [""], tags: [""] }, node));
	t.equal(grantValuesOf(node), undefined);
});

t.test(
	"a canary lets nobody in, looks like any wrong key, and raises an alarm",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{
					name: "bait",
					sha256: digestOf(testKeys.user),
					canary: true,
					scopes: ["read", "infer", "manage", "account"],
				},
			],
		});
		const ask = async (key: string) => {
			const response = await fetch(`${gate.url}/api/tags`, {
				headers: bearer(key),
			});
			return {
				status: response.status,
				body: await response.text(),
				challenge: response.headers.get("www-authenticate"),
			};
		};
		t.strictSame(await ask(testKeys.user), await ask(testKeys.wrong));
		t.equal((await ask(testKeys.user)).status, 401);
		t.equal(gate.standIn.calls.length, 0);
		t.match(await gate.logged(({ event }) => event === "canary_used"), {
			level: "error",
			key: "bait",
			ip: "127.0.0.1",
		});
		t.equal(
			gate.log.filter(({ event }) => event === "canary_used").length,
			2,
			"only for itself",
		);
		t.equal(
			gate.log.filter(({ event }) => event === "auth_failed").length,
			2,
			"and it counts as a wrong key, the same one once",
		);
	},
);

t.test(
	"keys list shows when each key was last used, by whom and how often",
	async (t) => {
		const { gate, send } = await start(t, "log", { node: { name: "laptop" } });
		await send();
		await send();
		await eventually(
			() => gate.log.filter(({ msg }) => msg === "request").length === 2,
		);
		const list = await runCli(["keys", "list", "--config", gate.configFile]);
		t.match(list.stdout, /user .* \d{4}-\d\d-\d\d \d\d:\d\dZ {2}2\n/);
		t.match(list.stdout, /; last used by laptop\n/);
		const json = JSON.parse(
			(await runCli(["keys", "list", "--json", "--config", gate.configFile]))
				.stdout,
		);
		t.match(json, {
			keys: [
				{
					name: "user",
					use: { lastFrom: "laptop", lastDay: 2, lastUsed: String },
				},
			],
		});
	},
);

t.test("keys that are about to expire are told of in the log", async (t) => {
	const inDays = (days: number) =>
		new Date(Date.now() + days * 86_400_000).toISOString();
	const gate = await startGate(t, {
		keys: [
			{ name: "soon", sha256: digestOf("a"), expires: inDays(6) },
			{ name: "later", sha256: digestOf("b"), expires: inDays(8) },
			{ name: "gone", sha256: digestOf("c"), expires: inDays(-1) },
			{ name: "ever", sha256: digestOf("d") },
		],
	});
	const told = gate.log
		.filter(({ event }) => event === "key_expires")
		.map(({ key, level, msg }) => ({ key, level, msg }));
	t.match(told, [
		{ key: "soon", level: "warn", msg: /within seven days/ },
		{ key: "gone", level: "warn", msg: /has expired/ },
	]);
	t.equal(told.length, 2);
});

t.test(
	"a reload while tailscaled is asked holds for the request that waits",
	async (t) => {
		const api = await startLocalApi(t);
		api.nodes.get = () => whoIsNode({});
		api.misbehave = () => "hold";
		const user: KeyEntry = { name: "user", sha256: digestOf(testKeys.user) };
		const gate = await startGate(t, {
			config: { identity: { mode: "log", socket: api.socket } },
			keys: [user],
		});
		const changes: [Partial<KeyEntry> | undefined, number][] = [
			[{ scopes: ["read"] }, 503],
			[{ models: ["other"] }, 503],
			[{ expires: "2001-01-01T00:00:00Z" }, 503],
			[{ bind: { nodes: ["elsewhere"] } }, 503],
			[{ canary: true }, 401],
			[undefined, 401],
			[{}, 200],
		];
		let asked = 0;
		for (const [change, status] of changes) {
			await gate.writeKeys([user]);
			await gate.daemon.reload();
			const answered = fetch(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}],"stream":false}',
			});
			await api.called(++asked);
			await gate.writeKeys(
				change === undefined ? [] : [{ ...user, ...change }],
			);
			await gate.daemon.reload();
			api.release();
			t.equal((await answered).status, status, JSON.stringify(change));
		}
	},
);

t.test(
	"a bound key is not made, and check finds one, where nobody is looked up",
	async (t) => {
		const gate = await startGate(t, {
			keys: [
				{
					name: "user",
					sha256: digestOf(testKeys.user),
					bind: { nodes: ["laptop"] },
				},
			],
			config: { identity: { mode: "log", socket: "/no/such/socket" } },
		});
		await gate.writeConfig({ identity: { mode: "off" } });
		const add = await runCli([
			"keys",
			"add",
			"other",
			"--bind",
			"laptop,me@example.com,tag:client",
			"--config",
			gate.configFile,
		]);
		t.equal(add.code, 1);
		t.match(add.stderr, /set identity\.mode/);
		t.equal((await runCli(["check", "--config", gate.configFile])).code, 78);
		await gate.writeConfig({
			identity: { mode: "log", socket: "/no/such/socket" },
		});
		t.equal(
			(
				await runCli([
					"keys",
					"add",
					"other",
					"--bind",
					"laptop,me@example.com,tag:client",
					"--config",
					gate.configFile,
				])
			).code,
			0,
		);
		t.match(
			(await runCli(["keys", "list", "--config", gate.configFile])).stdout,
			/other .*\n.*from laptop, me@example\.com, tag:client/,
		);
	},
);

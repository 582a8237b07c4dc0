import { chmod, readFile } from "node:fs/promises";
import path from "node:path";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { parseConfig } from "../../src/config/load.ts";
import { loadHostKeys } from "../../src/gate/hostRules.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { scopes } from "../../src/ollama/routes.ts";
import {
	eventually,
	startGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	errorOf,
	statusOf as gateStatus,
	hostsOf,
	isState,
	send,
	startHost,
	startWithHosts,
} from "../support/hosts.ts";
import { startPlainHost } from "../support/plainHost.ts";

const holds = ({ headers }: { headers: NodeJS.Dict<string | string[]> }) =>
	headers["user-agent"] === "holds" ? ("stall-mid-stream" as const) : undefined;
const own = { name: "own", key: `lg_${"ab".repeat(32)}` };

t.test("a request goes to the host that has its model", async (t) => {
	const a = await startHost(t, "a", { models: ["qwen3:8b"] });
	const b = await startHost(t, "b", { models: ["llama3.2:3b"] });
	const gate = await startWithHosts(t, [
		{ name: "a", url: a.url },
		{ name: "b", url: b.url },
	]);
	for (const model of ["llama3.2:3b", "llama3.2:3b", "qwen3:8b"])
		t.equal((await send(gate, { body: { model, messages: [] } })).status, 200);
	t.equal(a.prompts(), 1);
	t.equal(b.prompts(), 2);
	const shown = await send(gate, {
		path: "/api/show",
		body: { model: "llama3.2:3b" },
	});
	t.equal(shown.status, 200);
	t.equal(b.prompts(), 3);
	const none = await send(gate, { body: { model: "nothing", messages: [] } });
	t.equal(none.status, 404);
	t.match(await errorOf(none), "not found");
	t.match(
		await gate.logged(
			({ route, status }) => route === "POST /api/show" && status === 200,
		),
		{ upstream: "b" },
	);
});

t.test("a pattern leaves models to a host", async (t) => {
	const a = await startHost(t, "a");
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, [
		{ name: "a", url: a.url, models: ["llama3.2:*"] },
		{ name: "b", url: b.url },
	]);
	t.equal((await send(gate)).status, 200);
	t.equal(a.prompts(), 0);
	t.equal(b.prompts(), 1);
});

t.test("another host gets its own key, and never the client's", async (t) => {
	const a = await startHost(t, "a", { models: [] });
	const b = await startHost(t, "b");
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url: a.url },
			{ name: "b", url: b.url, keyFile: "b.key" },
		],
		{ files: { "b.key": `${own.key}\n` } },
	);
	t.equal((await send(gate)).status, 200);
	for (const { headers, rawHeaders } of b.standIn.calls) {
		t.equal(headers.authorization, `Bearer ${own.key}`);
		t.equal(headers["x-llamagate-hop"], "1");
		t.notOk(rawHeaders.join().includes(testKeys.owner));
	}
	for (const { headers } of a.standIn.calls)
		t.equal(headers.authorization, undefined);
	t.notOk(JSON.stringify(gate.log).includes(own.key));
	t.notOk(JSON.stringify(await hostsOf(gate)).includes(own.key));
});

t.test("a key that others may read is refused with its line", async (t) => {
	const gate = await startGate(t, { files: { "b.key": own.key } });
	const file = path.join(gate.folder, "b.key");
	const config = {
		upstream: undefined,
		upstreams: [{ name: "b", url: "http://127.0.0.1:1", keyFile: "b.key" }],
	};
	await chmod(file, 0o644);
	await gate.writeConfig(config);
	const lines = (await readFile(gate.configFile, "utf8")).split("\n");
	const refused = await gate.daemon.reload();
	t.match(refused, {
		ok: false,
		mistakes: [
			{
				path: "upstreams[0].keyFile",
				message: /others than its owner may read.*chmod 600/,
				line: lines.findIndex((text) => text.includes('"name": "b"')),
			},
		],
	});
	await chmod(file, 0o600);
	t.match(await gate.daemon.reload(), { ok: true });
});

t.test(
	"a name that leads out of the tailnet is refused with its line",
	async (t) => {
		const folder = (await startGate(t, { files: { "b.key": own.key } })).folder;
		const settings = parseConfig(
			'{\n"upstreams": [\n{ "name": "b", "url": "http://minipc:11434", "keyFile": "b.key" }]}',
			`${folder}/config.json`,
		);
		const at = (address: string) =>
			loadHostKeys(settings, (_name, _options, callback) =>
				callback(null, [{ address, family: 4 }]),
			);
		for (const address of ["192.168.1.5", "127.0.0.1"]) {
			const error = await at(address).catch((reason: unknown) => reason);
			t.match(error, {
				mistakes: [
					{
						path: "upstreams[0].url",
						line: 3,
						message: `leads to ${address}, outside the tailnet`,
					},
				],
			});
		}
		t.equal((await at("100.64.0.7")).get("b"), own.key);
		// It may be up later; until then its host is down.
		const unknown = await loadHostKeys(settings, (_name, _options, callback) =>
			callback(Object.assign(new Error("no"), { code: "ENOTFOUND" }), []),
		);
		t.equal(unknown.size, 1);
	},
);

t.test(
	"managing goes to the host that is named, or else to the first",
	async (t) => {
		const a = await startHost(t, "a");
		const b = await startHost(t, "b");
		const gate = await startWithHosts(t, [
			{ name: "a", url: a.url },
			{ name: "b", url: b.url },
		]);
		const copy = (headers: Record<string, string>) =>
			send(gate, {
				path: "/api/copy",
				body: { source: "qwen3:8b", destination: "mine" },
				headers,
			});
		t.equal((await copy({})).status, 200);
		t.strictSame([a.prompts(), b.prompts()], [1, 0]);
		t.equal((await copy({ "x-llamagate-upstream": "b" })).status, 200);
		t.strictSame([a.prompts(), b.prompts()], [1, 1]);
		const unknown = await copy({ "x-llamagate-upstream": "c" });
		t.equal(unknown.status, 400);
		t.match(await errorOf(unknown), "one of this gate's hosts: a, b");
		t.equal((await copy({ "x-llamagate-upstream": "a, b" })).status, 400);
		t.strictSame([a.prompts(), b.prompts()], [1, 1], "neither was asked");
		const prompt = await send(gate, {
			headers: { "x-llamagate-upstream": "b" },
		});
		t.equal(prompt.status, 400);
		const list = await send(gate, {
			path: "/api/tags",
			method: "GET",
			headers: { "x-llamagate-upstream": "b" },
		});
		const { models } = (await list.json()) as { models: { name: string }[] };
		t.ok(models.some(({ name }) => name === "mine:latest"));
	},
);

t.test("lists have each model once, and what the key may see", async (t) => {
	const a = await startHost(t, "a", { models: ["qwen3:8b", "only-a:1b"] });
	const b = await startHost(t, "b", {
		models: ["qwen3:8b", "only-b:1b", "hidden:1b"],
	});
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url: a.url },
			{ name: "b", url: b.url, models: ["qwen3:*", "only-b:*"] },
		],
		{
			keys: [
				...testEntries,
				{ name: "few", sha256: digestOf(testKeys.wrong), models: ["only-*"] },
			],
		},
	);
	const names = async (from: string, key = testKeys.owner) => {
		const reply = await send(gate, { path: from, method: "GET", key });
		t.equal(reply.status, 200);
		t.match(reply.headers.get("content-type"), "application/json");
		const { models, data } = (await reply.json()) as Record<
			string,
			{ name: string; id: string }[]
		>;
		return [...(models ?? []), ...(data ?? [])]
			.map(({ name, id }) => name ?? id)
			.sort();
	};
	t.strictSame(await names("/api/tags"), [
		"only-a:1b",
		"only-b:1b",
		"qwen3:8b",
	]);
	t.strictSame(await names("/v1/models"), [
		"only-a:1b",
		"only-b:1b",
		"qwen3:8b",
	]);
	t.strictSame(await names("/api/tags", testKeys.wrong), [
		"only-a:1b",
		"only-b:1b",
	]);
	t.strictSame(await names("/api/ps"), []);
	await send(gate, { body: { model: "only-b:1b", messages: [] } });
	t.strictSame(await names("/api/ps"), ["only-b:1b"]);
	const head = await fetch(`${gate.url}/api/tags`, {
		method: "HEAD",
		headers: { authorization: `Bearer ${testKeys.owner}` },
	});
	t.equal(head.status, 200);
	await b.kill();
	await isState(gate, "b", "down");
	t.strictSame(await names("/api/tags"), ["only-a:1b", "qwen3:8b"]);
	await a.kill();
	await isState(gate, "a", "down");
	const none = await send(gate, { path: "/api/tags", method: "GET" });
	t.equal(none.status, 502);
	t.match(await errorOf(none), "a is down, b is down");
});

t.test("a host of OpenAI's calls gets those alone", async (t) => {
	const a = await startHost(t, "a", { models: ["qwen3:8b"] });
	const b = await startHost(t, "b", { models: ["llama3.2:3b"] });
	const gate = await startWithHosts(t, [
		{ name: "b", url: b.url, kind: "openai" },
		{ name: "a", url: a.url },
	]);
	const model = "llama3.2:3b";
	const chat = await send(gate, {
		path: "/v1/chat/completions",
		body: { model, messages: [{ role: "user", content: "hi" }] },
	});
	t.equal(chat.status, 200);
	t.equal(b.prompts(), 1);
	t.equal((await send(gate, { body: { model, messages: [] } })).status, 404);
	t.equal(b.prompts(), 1);
	t.equal(
		(await send(gate, { path: "/api/version", method: "GET" })).status,
		200,
	);
	t.strictSame(
		[...new Set(b.standIn.calls.map(({ target }) => target))].sort(),
		["/v1/chat/completions", "/v1/models"],
	);
});

t.test("none of the hosts answers a call that only Ollama has", async (t) => {
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, [
		{ name: "b", url: b.url, kind: "openai" },
	]);
	const refused = await send(gate);
	t.equal(refused.status, 404);
	t.match(await errorOf(refused), "b speaks the calls below /v1 alone");
});

t.test(
	"a host of OpenAI's calls that is named for another says what it speaks",
	async (t) => {
		const a = await startHost(t, "a");
		const b = await startHost(t, "b");
		const gate = await startWithHosts(t, [
			{ name: "a", url: a.url },
			{ name: "b", url: b.url, kind: "openai" },
		]);
		const headers = { "x-llamagate-upstream": "b" };
		for (const sent of [
			{ path: "/api/pull", body: { model: "qwen3:8b" } },
			{ path: "/api/copy", body: { source: "qwen3:8b", destination: "x" } },
			{ path: "/api/tags", method: "GET" },
			{ path: "/api/ps", method: "GET" },
			{ path: "/api/version", method: "GET" },
		]) {
			const reply = await send(gate, { ...sent, headers });
			t.equal(reply.status, 404, sent.path);
			t.equal(reply.headers.get("retry-after"), null);
			t.match(
				await errorOf(reply),
				/the host b does not answer .*: it speaks the calls below \/v1 alone/,
			);
		}
		const list = { path: "/v1/models", method: "GET", headers };
		t.equal((await send(gate, list)).status, 200);
	},
);

t.test("where no host is an Ollama, its own calls are 404", async (t) => {
	const b = await startHost(t, "b");
	const c = await startHost(t, "c");
	const gate = await startWithHosts(t, [
		{ name: "b", url: b.url, kind: "openai" },
		{ name: "c", url: c.url, kind: "openai" },
	]);
	for (const sent of [
		{ path: "/api/pull", body: { model: "qwen3:8b" } },
		{ path: "/api/me", body: {} },
		{ path: "/api/tags", method: "GET" },
		{ path: "/api/ps", method: "GET" },
		{ path: "/api/version", method: "GET" },
	]) {
		const reply = await send(gate, sent);
		t.equal(reply.status, 404, sent.path);
		t.match(
			await errorOf(reply),
			/none of this gate's hosts answers .*: b speaks the calls below \/v1 alone, c /,
		);
	}
	const lines = gate.log.filter(({ status }) => status === 404);
	t.strictSame([...new Set(lines.map(({ reason }) => reason))], ["no_host"]);
	const list = await send(gate, { path: "/v1/models", method: "GET" });
	t.equal(list.status, 200);
});

t.test("a gate that asks a gate of gates alone is told so", async (t) => {
	const b = await startHost(t, "b");
	const second = await startWithHosts(
		t,
		[{ name: "back", url: b.url, keyFile: "k" }],
		{ files: { k: own.key } },
	);
	const headers = { "x-llamagate-hop": "1" };
	const list = await send(second, {
		path: "/api/tags",
		method: "GET",
		headers,
	});
	t.equal(list.status, 404);
	t.match(await errorOf(list), "back is behind another gate");
	const pull = await send(second, { path: "/api/pull", headers });
	t.equal(pull.status, 404);
	t.match(await errorOf(pull), "the host back does not answer");
});

t.test("a request that another gate has sent on goes no further", async (t) => {
	const a = await startHost(t, "a", { models: ["only-a:1b"] });
	const b = await startHost(t, "b", { models: ["qwen3:8b"] });
	// Behind b's own key is a second gate.
	const second = await startWithHosts(
		t,
		[
			{ name: "own", url: a.url },
			{ name: "back", url: b.url, keyFile: "k" },
		],
		{ files: { k: own.key } },
	);
	const first = await startWithHosts(
		t,
		[{ name: "second", url: second.url, keyFile: "k" }],
		{ files: { k: testKeys.owner } },
	);
	t.equal(
		(await send(first, { body: { model: "only-a:1b", messages: [] } })).status,
		200,
	);
	const elsewhere = await send(first);
	t.equal(elsewhere.status, 404);
	t.equal(b.prompts(), 0);
	const list = await send(first, { path: "/api/tags", method: "GET" });
	const { models } = (await list.json()) as { models: { name: string }[] };
	t.strictSame(
		models.map(({ name }) => name),
		["only-a:1b"],
	);
});

t.test(
	"another gate is not told how many wait, which would pass for a first byte",
	async (t) => {
		const gate = await startGate(t, {
			standIn: { parallel: 1, misbehave: holds },
			config: { queue: { mode: "fair", parallel: 1, announceAfter: "1ms" } },
		});
		const path = "/v1/chat/completions";
		const body = {
			model: "qwen3:8b",
			messages: [{ role: "user", content: "hi" }],
			stream: true,
		};
		const agent = { "user-agent": "holds" };
		const held = await send(gate, { path, body, headers: agent });
		const told = await send(gate, { path, body });
		const reader = told.body?.getReader();
		const first = await reader?.read();
		t.match(Buffer.from(first?.value ?? []).toString(), ": waiting, 0 ahead");
		let answered = false;
		const hop = { "x-llamagate-hop": "1" };
		const untold = send(gate, { path, body, headers: hop });
		void untold.then(() => {
			answered = true;
		});
		await eventually(async () => {
			const { queue } = await gateStatus(gate);
			return queue?.waiting.normal === 2;
		});
		// The other is told again and again, so this one would have been by now.
		for (let turn = 0; turn < 3; turn += 1) await reader?.read();
		t.notOk(answered);
		await held.body?.cancel();
		t.match(await (await untold).text(), /^data: /);
		await reader?.cancel();
	},
);

t.test("so many may wait at all hosts together", async (t) => {
	const a = await startHost(t, "a", { misbehave: holds, parallel: 1 });
	const b = await startHost(t, "b", { misbehave: holds, parallel: 1 });
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url: a.url, models: ["llama3.2:*"] },
			{ name: "b", url: b.url, models: ["qwen3:*"] },
		],
		{ config: { queue: { mode: "fair", parallel: 1, maxWaiting: 2 } } },
	);
	const controller = new AbortController();
	const ask = (model: string) =>
		send(gate, {
			headers: { "user-agent": "holds" },
			body: { model, messages: [{ role: "user", content: "hi" }] },
			signal: controller.signal,
		});
	const models = ["llama3.2:3b", "qwen3:8b"];
	for (const model of models) t.equal((await ask(model)).status, 200);
	const waiting = models.map((model) => ask(model).catch(() => undefined));
	await eventually(async () => {
		const { queue } = await gateStatus(gate);
		return queue?.waiting.normal === 2;
	});
	t.equal((await ask("qwen3:8b")).status, 503);
	controller.abort();
	await Promise.all(waiting);
});

t.test(
	"what another gate refuses its key is no fault of the client's",
	async (t) => {
		const a = await startHost(t, "a", { models: ["qwen3:8b"] });
		const second = await startGate(t, {
			standIn: { models: ["only-b:1b"] },
			keys: [
				{
					name: "first",
					sha256: digestOf(own.key),
					scopes: [...scopes],
					models: ["nothing:*"],
				},
			],
		});
		const gate = await startWithHosts(
			t,
			[
				{ name: "b", url: second.url, keyFile: "k" },
				{ name: "a", url: a.url },
			],
			{ files: { k: own.key } },
		);
		const pull = await send(gate, { path: "/api/pull", body: { model: "x" } });
		t.equal(pull.status, 502);
		t.match(
			await errorOf(pull),
			/the host "b" refuses this to this gate's own key \(403\)/,
		);
		// Its key is taken away.
		await second.writeKeys([]);
		await second.daemon.reload();
		await isState(gate, "b", "down");
		t.match(
			(await hostsOf(gate))[0]?.why,
			"does not take this gate's key (401)",
		);
		t.equal((await send(gate)).status, 200);
	},
);

t.test("hosts come and go with a reload, and what runs goes on", async (t) => {
	const a = await startHost(t, "a", {
		misbehave: ({ headers }) =>
			headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
	});
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, [{ name: "a", url: a.url }], {
		config: { queue: { mode: "fair", parallel: 1 } },
	});
	const running = await send(gate, { headers: { "user-agent": "holds" } });
	const reader = running.body?.getReader();
	await reader?.read();
	const waiting = send(gate);
	await eventually(async () => (await hostsOf(gate))[0]?.outstanding === 2);
	await gate.writeConfig({
		upstreams: [{ name: "b", url: b.url }],
		queue: { mode: "fair", parallel: 1 },
	});
	t.match(await gate.daemon.reload(), { ok: true });
	t.equal((await waiting).status, 200);
	t.equal(b.prompts(), 1, "what had waited for the other went there");
	t.equal(a.standIn.activeCalls() > 0, true, "the stream goes on");
	await gate.writeConfig({});
	t.match(await gate.daemon.reload(), { ok: true });
	t.equal((await send(gate)).status, 200);
	t.equal(gate.standIn.calls.length, 1);
	await reader?.cancel();
});

t.test(
	"each host has slots of its own, and who waits is fair over all",
	async (t) => {
		const a = await startHost(t, "a", { misbehave: holds, parallel: 1 });
		const b = await startHost(t, "b", { misbehave: holds, parallel: 1 });
		const gate = await startWithHosts(
			t,
			[
				{ name: "a", url: a.url },
				{ name: "b", url: b.url, models: ["qwen3:*"] },
			],
			{ config: { queue: { mode: "fair", parallel: 1, maxWaiting: 2 } } },
		);
		const controller = new AbortController();
		const hold = (model: string, content: string) =>
			send(gate, {
				headers: { "user-agent": "holds" },
				body: { model, messages: [{ role: "user", content }] },
				signal: controller.signal,
			});
		// The first loads it on a; the second finds a busy for longer than a load takes only by the queue's word.
		const first = await hold("llama3.2:3b", "1");
		t.equal(first.status, 200);
		const waits = hold("llama3.2:3b", "2").catch(() => undefined);
		await eventually(async () => (await hostsOf(gate))[0]?.outstanding === 2);
		t.equal((await send(gate)).status, 200, "the other host's slot is free");
		t.equal(b.prompts(), 1);
		const more = hold("llama3.2:3b", "3").catch(() => undefined);
		await eventually(async () => (await hostsOf(gate))[0]?.outstanding === 3);
		const full = await hold("llama3.2:3b", "4");
		t.equal(full.status, 503);
		controller.abort();
		await Promise.all([waits, more]);
	},
);

t.test("status and metrics tell of each host", async (t) => {
	const a = await startHost(t, "a");
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url: a.url },
			{ name: "away", url: "http://127.0.0.1:1" },
		],
		{},
		false,
	);
	await isState(gate, "away", "down");
	await isState(gate, "a", "up");
	await send(gate);
	t.match(await hostsOf(gate), [
		{
			name: "a",
			kind: "ollama",
			url: a.url,
			state: "up",
			why: null,
			models: 3,
			requests: 1,
		},
		{
			name: "away",
			state: "down",
			why: "ECONNREFUSED",
			models: null,
			requests: 0,
		},
	]);
	const { body } = await askDaemon(`${gate.folder}/admin.sock`, "GET /metrics");
	for (const line of [
		'llamagate_host_up{upstream="a"} 1',
		'llamagate_host_up{upstream="away"} 0',
		'llamagate_host_requests_total{upstream="a"} 1',
		'llamagate_host_failures_total{upstream="a"} 0',
		'llamagate_host_moved_total{upstream="a"} 0',
		'llamagate_host_outstanding{upstream="a"} 0',
	])
		t.ok(body.split("\n").includes(line), line);
	t.match(await gate.logged(({ event }) => event === "upstream_state"), {
		upstream: /.+/,
	});
});

t.test(
	"a call that one request got a 404 for is taken away from nobody",
	async (t) => {
		const messages = [{ role: "user", content: "hi" }];
		const body = (model: string) => ({ model, messages });
		for (const status of [404, 405, 501]) {
			const v = await startPlainHost(t, ["chat", "embed"], ({ odd }) =>
				odd === true
					? { status, body: { error: { message: "no" } } }
					: { body: { by: "v", choices: [] } },
			);
			const o = await startHost(t, "o", { models: ["qwen3:8b"] });
			const gate = await startWithHosts(t, [
				{ name: "o", url: o.url },
				{ name: "v", url: v.url, kind: "openai" },
			]);
			const ask = (sent: object) =>
				send(gate, { path: "/v1/chat/completions", body: sent });
			// Before it has answered any, after it has, and for another model.
			for (let turn = 0; turn < 2; turn += 1) {
				t.equal((await ask({ ...body("chat"), odd: true })).status, status);
				t.equal((await ask(body("typo"))).status, 404);
				t.match(await (await ask(body("chat"))).json(), { by: "v" });
				t.match(await (await ask(body("embed"))).json(), { by: "v" });
			}
			t.equal(v.prompts.length, 6, "nor was it asked for what it has not");
		}
	},
);

t.test("a call that a host does not know goes to one that does", async (t) => {
	const v = await startPlainHost(t, ["qwen3:8b"], (_prompt, path) =>
		path === "/v1/completions"
			? { status: 501, body: { error: { message: "no" } } }
			: { body: { by: "v", choices: [] } },
	);
	const o = await startHost(t, "o", { models: ["qwen3:8b"] });
	const gate = await startWithHosts(t, [
		{ name: "v", url: v.url, kind: "openai", weight: 100 },
		{ name: "o", url: o.url },
	]);
	const path = "/v1/completions";
	for (let turn = 0; turn < 3; turn += 1) {
		const body = { model: "qwen3:8b", prompt: "hi" };
		t.equal((await send(gate, { path, body })).status, 200);
	}
	t.strictSame([v.prompts.length, o.prompts()], [1, 3]);
	const messages = [{ role: "user", content: "hi" }];
	const chat = { model: "qwen3:8b", messages };
	const reply = await send(gate, { path: "/v1/chat/completions", body: chat });
	t.match(await reply.json(), { by: "v" });
});

t.test(
	"a host behind a key gets nothing before it was looked at",
	async (t) => {
		const far = await startPlainHost(
			t,
			["qwen3:8b"],
			() => ({ body: { done: true } }),
			() => new Promise(() => {}),
		);
		const a = await startHost(t, "a", { models: ["qwen3:8b"] });
		const gate = await startWithHosts(
			t,
			[
				{ name: "far", url: far.url, keyFile: "k", models: ["qwen3:*"] },
				{ name: "a", url: a.url, models: ["llama3.2:*"] },
			],
			{ files: { k: own.key } },
			false,
		);
		await isState(gate, "a", "up");
		const prompt = await send(gate);
		t.equal(prompt.status, 502);
		t.match(await errorOf(prompt), "far has not said yet what it has");
		const pull = { path: "/api/pull", body: { model: "qwen3:8b" } };
		t.equal((await send(gate, pull)).status, 502);
		t.strictSame(far.prompts, []);
	},
);

t.test("what runs without a word goes on when its host goes", async (t) => {
	let answer = () => {};
	const a = await startPlainHost(t, ["qwen3:8b"], async () => {
		await new Promise<void>((resolve) => {
			answer = resolve;
		});
		return { body: { by: "a", done: true } };
	});
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, [{ name: "a", url: a.url }], {
		config: { queue: { mode: "fair" } },
	});
	const body = { model: "qwen3:8b", messages: [], stream: false };
	const reply = send(gate, { body });
	await eventually(() => a.prompts.length === 1);
	await gate.writeConfig({
		upstreams: [{ name: "b", url: b.url }],
		queue: { mode: "fair" },
	});
	t.match(await gate.daemon.reload(), { ok: true });
	answer();
	t.match(await (await reply).json(), { by: "a" });
	t.equal(b.prompts(), 0);
});

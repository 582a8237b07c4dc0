import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { zstdCompressSync } from "node:zlib";
import t, { type Test } from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { type StandIn, startStandIn } from "../../src/ollama/standIn.ts";
import { Ticket } from "../../src/queue/ticket.ts";
import {
	bearer,
	eventually,
	type GateOptions,
	startGate,
	testKeys,
} from "../support/gate.ts";
import { type Call, queueOf, send, waitUntil } from "../support/queue.ts";
import { openRaw, post, shows, statusOf } from "../support/raw.ts";

/** A gate whose Ollama works on one request at a time, and says nothing before its turn. */
function startQueued(t: Test, options: GateOptions = {}, queue: object = {}) {
	return startGate(t, {
		...options,
		standIn: {
			parallel: 1,
			// A stream that says so holds its slot until its client leaves.
			misbehave: ({ headers }) =>
				headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
			...options.standIn,
		},
		config: {
			queue: { mode: "fair", parallel: 1, ...queue },
			...options.config,
		},
		keys: options.keys ?? [
			{ name: "batch", sha256: digestOf(testKeys.user) },
			{ name: "person", sha256: digestOf(testKeys.worker) },
			{
				name: "owner",
				sha256: digestOf(testKeys.owner),
				priority: "interactive",
			},
		],
	});
}

type Gate = Awaited<ReturnType<typeof startQueued>>;

async function errorOf(reply: Response | undefined): Promise<unknown> {
	const body = (await reply?.json()) as { error?: unknown } | undefined;
	return body?.error;
}

/** What has reached Ollama, by the names that the calls were given. */
function served({ standIn }: { standIn: StandIn }): string[] {
	return standIn.calls
		.filter(({ method }) => method === "POST")
		.map(({ headers }) => String(headers["user-agent"]));
}

/** Takes the only slot, until its client leaves. */
async function hold(gate: Gate, call: Call = {}) {
	const held = send(gate, { as: "holds", ...call });
	await held.response;
	return held;
}

/** What the counters tell of waits that have ended. */
async function waitsCounted(gate: Gate) {
	const { body } = await askDaemon(`${gate.folder}/admin.sock`, "GET /metrics");
	const count = (name: string) =>
		Number(
			new RegExp(`^llamagate_queue_${name}_total (.*)$`, "m").exec(body)?.[1],
		);
	return {
		turns: count("turns"),
		left: count("left"),
		hasWaited: count("wait_seconds") > 0,
	};
}

t.test("a wait that a reload ends is told of, too", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate, { key: testKeys.worker });
	const second = send(gate);
	await waitUntil(gate, 1);
	await gate.writeKeys([{ name: "person", sha256: digestOf(testKeys.worker) }]);
	t.match(await gate.daemon.reload(), { ok: true });
	t.equal((await second.response).status, 401);
	const line = await gate.logged(({ reason }) => reason === "revoked");
	t.type(line.queueMs, "number");
	t.match(await waitsCounted(gate), { turns: 1, left: 1, hasWaited: true });
	first.leave();
});

t.test("who has had less goes before who has many open", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	const many = [];
	for (let at = 0; at < 5; at += 1) {
		many.push(send(gate, { as: `batch ${at}` }));
		await waitUntil(gate, at + 1);
	}
	const one = send(gate, { as: "person", key: testKeys.worker });
	await waitUntil(gate, 6);
	t.same(served(gate), ["holds"], "the others wait in the gate");
	first.leave();
	t.equal((await one.response).status, 200);
	await one.text();
	await Promise.all(many.map(({ text }) => text()));
	t.same(served(gate), [
		"holds",
		"person",
		...[0, 1, 2, 3, 4].map((at) => `batch ${at}`),
	]);
});

t.test("the wait is told in a header and in the log", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	t.match(
		(await first.response).headers.get("x-llamagate-queue-ms"),
		/^[0-9]+$/,
	);
	const second = send(gate);
	await waitUntil(gate, 1);
	const { streams, queue } = await statusOf(gate);
	t.match({ streams, queue }, { streams: 1, queue: { running: 1 } });
	first.leave();
	const waitedMs = Number(
		(await second.response).headers.get("x-llamagate-queue-ms"),
	);
	t.ok(waitedMs > 0);
	await second.text();
	const line = await gate.logged(
		({ route, outcome }) => route === "POST /api/generate" && outcome === "ok",
	);
	// Both are rounded, the line to a tenth.
	t.ok(Math.abs(Number(line.queueMs) - waitedMs) <= 0.55);
});

t.test(
	"a class goes before the lower ones, and a request may lower its own",
	async (t) => {
		const gate = await startQueued(t, {
			keys: [
				{ name: "batch", sha256: digestOf(testKeys.user), priority: "batch" },
				{ name: "person", sha256: digestOf(testKeys.worker) },
				{
					name: "owner",
					sha256: digestOf(testKeys.owner),
					priority: "interactive",
				},
			],
		});
		const first = await hold(gate);
		const calls: Call[] = [
			{ as: "batch" },
			{
				as: "batch that asks for more",
				headers: { "x-llamagate-priority": "interactive" },
			},
			{ as: "normal", key: testKeys.worker },
			{
				as: "interactive, lowered",
				key: testKeys.owner,
				headers: { "x-llamagate-priority": "batch" },
			},
			{ as: "interactive", key: testKeys.owner },
		];
		const sent = [];
		for (const [at, call] of calls.entries()) {
			sent.push(send(gate, call));
			await waitUntil(gate, at + 1);
		}
		first.leave();
		await Promise.all(sent.map(({ text }) => text()));
		const order = served(gate);
		t.same(order.slice(1, 3), ["interactive", "normal"]);
		t.ok(
			order.indexOf("batch that asks for more") > 2,
			"a header raises nothing",
		);
		t.ok(order.indexOf("interactive, lowered") > 2);
		const { body } = await askDaemon(
			`${gate.folder}/admin.sock`,
			"GET /metrics",
		);
		t.match(body, /^llamagate_queue_ignored_priorities_total 1$/m);
	},
);

t.test(
	"whoever leaves the queue is gone, and Ollama never hears of it",
	async (t) => {
		const gate = await startQueued(t);
		const first = await hold(gate);
		const second = send(gate, { as: "leaves" });
		await waitUntil(gate, 1);
		second.leave();
		const line = await gate.logged(({ outcome }) => outcome === "client_gone");
		t.equal(line.status, 499);
		t.type(line.queueMs, "number");
		await waitUntil(gate, 0);
		t.match(await waitsCounted(gate), { turns: 1, left: 1, hasWaited: true });
		first.leave();
		await send(gate, { as: "after" }).text();
		t.same(served(gate), ["holds", "after"]);
	},
);

t.test(
	"too many of one user's, and too many in all, are turned away",
	async (t) => {
		const gate = await startQueued(
			t,
			{},
			{ maxWaiting: 3, maxWaitingPerUser: 2 },
		);
		const first = await hold(gate);
		const waiting = [send(gate), send(gate)];
		await waitUntil(gate, 2);
		const third = await send(gate, { path: "/v1/chat/completions" }).response;
		t.equal(third.status, 429);
		t.ok(Number(third.headers.get("retry-after")) > 0);
		t.match(await errorOf(third), { message: "of your requests wait" });
		waiting.push(send(gate, { key: testKeys.worker }));
		await waitUntil(gate, 3);
		const other = await send(gate, { key: testKeys.owner }).response;
		t.equal(other.status, 503);
		t.ok(Number(other.headers.get("retry-after")) > 0);
		first.leave();
		await Promise.all(waiting.map(({ text }) => text()));
	},
);

t.test(
	"a waiting event stream is told so in comments, and goes on as usual",
	async (t) => {
		const gate = await startQueued(t, {}, { announceAfter: "200ms" });
		for (const path of [
			"/v1/chat/completions",
			"/v1/responses",
			"/v1/messages",
		]) {
			const first = await hold(gate);
			const second = send(gate, {
				path,
				body: { stream: true, input: "a", max_tokens: 5 },
			});
			const { status, headers } = await second.response;
			t.equal(status, 200, `${path} has begun while it waits`);
			t.equal(headers.get("content-type"), "text/event-stream");
			first.leave();
			const text = await second.text();
			t.match(
				text,
				/^: waiting, 0 ahead\n\n(: waiting, 0 ahead\n\n)*(event|data): /,
			);
			t.match(text, /\[DONE\]|response\.completed|message_stop/);
			await gate.logged(
				({ route, outcome }) => route === `POST ${path}` && outcome === "ok",
			);
		}
	},
);

t.test("what fails behind such a comment is told in the stream", async (t) => {
	const gate = await startQueued(t, {}, { announceAfter: "200ms" });
	const first = await hold(gate);
	const second = send(gate, {
		path: "/v1/chat/completions",
		body: { stream: true, messages: "no list" },
	});
	t.equal((await second.response).status, 200);
	first.leave();
	const read = await second.text().catch(() => undefined);
	t.match(
		await gate.logged(
			({ route, outcome }) =>
				route === "POST /v1/chat/completions" && outcome !== "client_gone",
		),
		{ outcome: "upstream_error", reason: "upstream_status", status: 200 },
	);
	if (read !== undefined) t.match(read, /event: error\ndata: \{"error"/);
});

t.test("the waiting are answered at once when the gate stops", async (t) => {
	const gate = await startQueued(t, { config: { drainTimeout: "5m" } });
	const first = await hold(gate);
	const second = send(gate);
	await waitUntil(gate, 1);
	const stopped = gate.daemon.stop();
	t.equal((await second.response).status, 503);
	first.leave();
	await stopped;
	t.same(served(gate), ["holds"]);
});

t.test("a key that is revoked waits no longer", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	const second = send(gate, { key: testKeys.worker });
	await waitUntil(gate, 1);
	await gate.writeKeys([{ name: "batch", sha256: digestOf(testKeys.user) }]);
	await gate.daemon.reload();
	t.equal((await second.response).status, 401);
	first.leave();
	await first.text().catch(() => {});
	t.same(served(gate), ["holds"]);
});

t.test("turned off by a reload, it lets everything go", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	const second = send(gate, { as: "second" });
	await waitUntil(gate, 1);
	await gate.writeConfig({ queue: { mode: "off" } });
	await gate.daemon.reload();
	await eventually(() => served(gate).includes("second"));
	first.leave();
	t.equal((await second.response).status, 200);
	t.notOk((await send(gate).response).headers.has("x-llamagate-queue-ms"));
	t.equal(await queueOf(gate), undefined);
});

t.test("the waiting hear that Ollama is away, all at once", async (t) => {
	const gate = await startQueued(t);
	await hold(gate);
	const waiting = [send(gate), send(gate, { key: testKeys.worker })];
	await waitUntil(gate, 2);
	await gate.standIn.close();
	const replies = await Promise.all(waiting.map(({ response }) => response));
	t.same(
		replies.map(({ status }) => status),
		[502, 502],
	);
	t.match(await errorOf(replies[0]), "Ollama went away");
	t.equal(
		(await send(gate).response).status,
		502,
		"who comes now hears it too",
	);
});

t.test("the waiting go on when Ollama is back", async (t) => {
	const gate = await startQueued(t);
	await hold(gate);
	const waiting = send(gate);
	await waitUntil(gate, 1);
	const { port } = gate.standIn;
	await gate.standIn.close();
	const again = await startStandIn({ port });
	t.teardown(() => again.close());
	t.equal((await waiting.response).status, 200);
	t.same(served({ standIn: again }), ["x"]);
});

t.test(
	"Ollama is ended while it loads: one request fails, the others go on",
	async (t) => {
		const gate = await startQueued(t, {
			standIn: { parallel: 1, loadMs: 600_000 },
		});
		const loading = once(gate.standIn.scheduler.events, "loading");
		const first = send(gate);
		await loading;
		const others = [send(gate), send(gate, { key: testKeys.worker })];
		await waitUntil(gate, 2);
		const { port } = gate.standIn;
		await gate.standIn.close();
		const again = await startStandIn({ port });
		t.teardown(() => again.close());
		t.equal((await first.response).status, 502);
		for (const { response, text } of others) {
			t.equal((await response).status, 200);
			await text();
		}
	},
);

t.test("a load goes on for the others when its client leaves", async (t) => {
	const gate = await startQueued(t, { standIn: { parallel: 1, loadMs: 500 } });
	const loading = once(gate.standIn.scheduler.events, "loading");
	const first = send(gate);
	await loading;
	const loaded = once(gate.standIn.scheduler.events, "loaded");
	first.leave();
	await gate.logged(({ outcome }) => outcome === "client_gone");
	await loaded;
	await eventually(() => gate.standIn.activeCalls() === 0);
	t.equal(gate.standIn.scheduler.loaded().length, 1);
	t.equal((await send(gate).response).status, 200);
});

t.test("a load is given up after loadGrace", async (t) => {
	const gate = await startQueued(
		t,
		{ standIn: { parallel: 1, loadMs: 600_000 } },
		{ loadGrace: "1s" },
	);
	const loading = once(gate.standIn.scheduler.events, "loading");
	const first = send(gate);
	await loading;
	first.leave();
	await eventually(() => gate.standIn.activeCalls() === 0);
	t.same(gate.standIn.scheduler.loaded(), []);
});

t.test("while a model loads, its other requests wait here", async (t) => {
	const gate = await startQueued(
		t,
		{
			standIn: { parallel: 1, loadMs: 2_000 },
		},
		{ parallel: 4 },
	);
	const loading = once(gate.standIn.scheduler.events, "loading");
	const calls = ["one", "two", "three"].map((as) => send(gate, { as }));
	await loading;
	await waitUntil(gate, 2);
	t.equal(served(gate).length, 1);
	await Promise.all(calls.map(({ text }) => text()));
	t.equal(served(gate).length, 3);
});

t.test(
	"the user of a second model gets a turn where there is room for one",
	async (t) => {
		const gate = await startQueued(t, {
			standIn: {
				parallel: 1,
				maxLoadedModels: 1,
				loadMs: 20,
				tokenIntervalMs: 2,
			},
		});
		let wanted = true;
		const keepAsking = async (call: Call) => {
			while (wanted) await send(gate, call).text();
		};
		const busy = [1, 2, 3, 4].map(() => keepAsking({ as: "a" }));
		const other = keepAsking({
			as: "b",
			key: testKeys.worker,
			body: { model: "llama3.2:3b" },
		});
		await eventually(() => served(gate).filter((as) => as === "b").length >= 3);
		wanted = false;
		await Promise.all([...busy, other]);
		t.pass("it was served again and again");
	},
);

t.test("a model that does not exist takes no turn", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	const reply = await send(gate, { body: { model: "none" } }).response;
	t.equal(reply.status, 404);
	const without = await send(gate, { body: { model: undefined } }).response;
	t.equal(without.status, 404, "nor does one without a name");
	first.leave();
});

t.test("nobody passes by a body that is hard to read", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	const ask = (text: string) =>
		fetch(`${gate.url}/api/generate`, {
			method: "POST",
			headers: { ...bearer(testKeys.user), "user-agent": "odd" },
			body: text,
		});
	const odd = [
		ask('{"model":"llama3.2:3b","model":"qwen3:8b","prompt":"a"}'),
		ask('{"MODEL":"qwen3:8b","prompt":"a"}'),
	];
	await eventually(
		() => served(gate).filter((as) => as === "odd").length === 1,
	);
	await waitUntil(gate, 1);
	first.leave();
	for (const reply of await Promise.all(odd)) await reply.text();
});

t.test(
	"a place is free once Ollama is done, although the reply is not with its client yet",
	async (t) => {
		const gate = await startQueued(
			t,
			{ standIn: { parallel: 2 } },
			{ parallel: 2 },
		);
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		const body = JSON.stringify({ model: "qwen3:8b", prompt: "a" });
		const ask = (as: string) =>
			post("/api/generate", body, shows(testKeys.user), `User-Agent: ${as}`);
		// A second reply on one connection waits for the first to end.
		client.write(`${ask("holds")}${ask("behind")}`);
		await eventually(() => served(gate).length === 2);
		await waitUntil(gate, 0, 1);
	},
);

t.test(
	"what is answered beside a client that does not read is no sign of a place more",
	async (t) => {
		const gate = await startQueued(
			t,
			// With a slot for the second, as if the first had ended there.
			{ standIn: { parallel: 2 } },
			{ parallel: "auto" },
		);
		const stalled = t.capture(
			...([Ticket.prototype, "stalled", Ticket.prototype.stalled] as const),
		);
		const client = await openRaw(gate.port);
		t.teardown(() => client.destroy());
		client.socket.pause();
		const body = JSON.stringify({
			...{ model: "qwen3:8b", prompt: "a" },
			options: { num_predict: 200_000 },
		});
		client.write(post("/api/generate", body, shows(testKeys.user)));
		await eventually(() => stalled().length > 0);
		await send(gate).text();
		t.equal((await queueOf(gate))?.models[0]?.slots, 1);
	},
);

/** It runs until its client leaves. */
const long = { options: { num_predict: 10_000 } };

t.test("how many Ollama works on at once is learnt", async (t) => {
	const gate = await startQueued(
		t,
		{ standIn: { parallel: 3, tokenIntervalMs: 20 } },
		{ parallel: "auto" },
	);
	const goesOn = () => hold(gate, { as: "x", body: long });
	const held = await Promise.all([goesOn(), goesOn(), goesOn()]);
	const more = [send(gate), send(gate)];
	await waitUntil(gate, 1);
	// One more was tried.
	await eventually(() => served(gate).length === 4);
	for (const { leave } of held) leave();
	await Promise.all(more.map(({ text }) => text()));
});

t.test(
	"large bodies go through whole, wherever they name their model",
	async (t) => {
		const gate = await startQueued(t);
		const long = "x".repeat(3_000_000);
		const bodies = [
			{ model: "qwen3:8b", stream: false, prompt: long },
			{ model: "qwen3:8b", prompt: long, stream: false },
			{ prompt: long, stream: false, model: "qwen3:8b" },
		];
		for (const body of bodies) {
			const first = await hold(gate);
			const text = JSON.stringify(body);
			const sent = [text, new Blob([text]).stream()].map((whole) =>
				fetch(`${gate.url}/api/generate`, {
					method: "POST",
					headers: { ...bearer(testKeys.worker), "user-agent": "large" },
					body: whole,
					// A stream is sent in chunks.
					...(whole === text ? {} : { duplex: "half" }),
				} as RequestInit),
			);
			await waitUntil(gate, 2);
			first.leave();
			for (const reply of await Promise.all(sent)) {
				t.equal(reply.status, 200);
				await reply.text();
			}
			const calls = gate.standIn.calls
				.filter(({ headers }) => headers["user-agent"] === "large")
				.slice(-2);
			for (const { body: arrived } of calls)
				t.ok(arrived.equals(Buffer.from(text)));
		}
	},
);

t.test("a packed body waits for the turn of the model in it", async (t) => {
	const gate = await startQueued(t);
	const first = await hold(gate);
	const packed = fetch(`${gate.url}/v1/chat/completions`, {
		method: "POST",
		headers: { ...bearer(testKeys.worker), "content-encoding": "zstd" },
		body: zstdCompressSync(
			JSON.stringify({
				model: "qwen3:8b",
				messages: [{ role: "user", content: "a" }],
			}),
		),
	});
	await waitUntil(gate, 1);
	first.leave();
	t.equal((await packed).status, 200);
});

t.test("a load that fails is told to all who wait for it", async (t) => {
	const waiting: (() => void)[] = [];
	const server = createServer((req, res) => {
		req.resume();
		const lists: Record<string, string> = {
			"/api/tags": '{"models":[{"name":"m:latest","digest":"d"}]}',
			"/api/ps": '{"models":[]}',
		};
		const list = lists[req.url ?? ""];
		if (list !== undefined) return void res.end(list);
		waiting.push(() => res.writeHead(500).end('{"error":"out of memory"}'));
	});
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	const { port } = server.address() as AddressInfo;
	const gate = await startQueued(t, {
		upstreamUrl: `http://127.0.0.1:${port}`,
	});
	const calls = [1, 2, 3].map(() => send(gate, { body: { model: "m" } }));
	await waitUntil(gate, 2);
	await eventually(() => waiting.length > 0);
	waiting[0]?.();
	const replies = await Promise.all(calls.map(({ response }) => response));
	t.same(
		replies.map(({ status }) => status),
		[500, 502, 502],
	);
	t.match(await errorOf(replies[1]), 'could not load the model "m"');
	t.equal(waiting.length, 1, "none of them was sent");
});

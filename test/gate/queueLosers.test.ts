import { once } from "node:events";
import {
	createServer,
	type IncomingMessage,
	type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import t, { type Test } from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	eventually,
	type GateOptions,
	startGate,
	testKeys,
} from "../support/gate.ts";
import { queueOf, send, waitUntil } from "../support/queue.ts";

/** What users can do to each other by way of the queue: nothing. */

const keys = [
	{ name: "ann", sha256: digestOf(testKeys.user) },
	{ name: "bob", sha256: digestOf(testKeys.worker) },
];

async function startQueued(
	t: Test,
	options: GateOptions = {},
	queue: object = {},
) {
	const gate = await startGate(t, {
		...options,
		config: { queue: { mode: "fair", parallel: 1, ...queue } },
		keys,
	});
	return gate;
}

/** An Ollama whose every answer the test gives. */
async function startPuppet(t: Test) {
	const calls: { req: IncomingMessage; res: ServerResponse; key: string }[] =
		[];
	const puppet = {
		calls,
		/** Models in /api/ps; it fails while this is undefined. */
		loaded: [] as string[] | undefined,
		asked: 0,
		lookups: 0,
		/** Resolves when /api/tags may be answered. */
		tags: Promise.resolve(),
		url: "",
	};
	const list = (names: readonly string[]) =>
		JSON.stringify({
			models: names.map((name) => ({ name: `${name}:latest`, digest: name })),
		});
	const server = createServer((req, res) => {
		req.resume();
		if (req.url === "/api/tags") {
			puppet.lookups += 1;
			void puppet.tags.then(() => res.end(list(["m", "n", "o"])));
		} else if (req.url === "/api/version") res.end('{"version":"0.32.15"}');
		else if (req.url === "/api/ps") {
			puppet.asked += 1;
			if (puppet.loaded === undefined) res.writeHead(500);
			res.end(list(puppet.loaded ?? []));
		} else calls.push({ req, res, key: String(req.headers["user-agent"]) });
	});
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	puppet.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
	return puppet;
}

const done = '{"model":"m","response":"","done":true}\n';
function answer({ res }: { res: ServerResponse }, status = 200): void {
	res.writeHead(status, { "content-type": "application/x-ndjson" });
	res.end(status === 200 ? done : '{"error":"no"}');
}

t.test(
	"a load that fails for one user is tried for the next, and told to all after the second",
	async (t) => {
		const puppet = await startPuppet(t);
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const { user, worker } = testKeys;
		const first = send(gate, { key: user, model: "m" });
		await eventually(() => puppet.calls.length === 1);
		const own = send(gate, { key: user, model: "m" });
		const others = [
			send(gate, { key: worker, model: "m" }),
			send(gate, { key: worker, model: "m" }),
		];
		await waitUntil(gate, 3, 1);
		const [one] = puppet.calls;
		if (one !== undefined) answer(one, 500);
		t.equal((await first.response).status, 500);
		t.equal((await own.response).status, 502);
		await eventually(() => puppet.calls.length === 2);
		const late = send(gate, { key: user, model: "m" });
		await waitUntil(gate, 2, 1);
		const [, two] = puppet.calls;
		if (two !== undefined) answer(two, 500);
		const replies = await Promise.all(
			[...others, late].map(({ response }) => response),
		);
		t.same(
			replies.map(({ status }) => status),
			[500, 502, 502],
		);
	},
);

t.test(
	"a request that Ollama turns away is not taken for a load",
	async (t) => {
		const puppet = await startPuppet(t);
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const first = send(gate, { model: "m" });
		await eventually(() => puppet.calls.length === 1);
		const [one] = puppet.calls;
		if (one !== undefined) answer(one, 400);
		t.equal((await first.response).status, 400);
		await waitUntil(gate, 0, 0);
		t.match(await queueOf(gate), { loads: 0, models: [] });
	},
);

t.test(
	"what Ollama has refused to load holds nobody up, though its client leaves before the whole answer is there",
	async (t) => {
		const puppet = await startPuppet(t);
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const first = send(gate, { key: testKeys.user, model: "m" });
		await eventually(() => puppet.calls.length === 1);
		const other = send(gate, { key: testKeys.worker, model: "m" });
		await waitUntil(gate, 1, 1);
		const [one] = puppet.calls;
		one?.res.writeHead(400, { "content-type": "application/json" });
		one?.res.flushHeaders();
		t.equal((await first.response).status, 400);
		first.leave();
		await eventually(() => puppet.calls.length === 2);
		const [, two] = puppet.calls;
		if (two !== undefined) answer(two);
		t.equal((await other.response).status, 200);
		await waitUntil(gate, 0, 0);
	},
);

t.test(
	"one answer that does not come does not make all models pass for loaded",
	async (t) => {
		const puppet = await startPuppet(t);
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const { user, worker } = testKeys;
		const first = send(gate, { key: user, model: "m" });
		await eventually(() => puppet.calls.length === 1);
		const [one] = puppet.calls;
		one?.res.writeHead(200, { "content-type": "application/x-ndjson" });
		one?.res.flushHeaders();
		await first.response;
		puppet.loaded = undefined;
		const second = send(gate, { key: user, model: "m" });
		const { asked } = puppet;
		await eventually(() => puppet.asked > asked);
		puppet.loaded = ["m"];
		const others = [
			send(gate, { key: worker, model: "n" }),
			send(gate, { key: worker, model: "o" }),
		];
		// One of them loads its model.
		await waitUntil(gate, 2, 2);
		await eventually(() => puppet.calls.length === 2);
		for (const call of puppet.calls) call.res.end(done);
		await eventually(() => puppet.calls.length === 3);
		second.leave();
		for (const other of others) other.leave();
	},
);

t.test(
	"once the model is loaded, a reply whose client has left goes on no longer",
	async (t) => {
		const puppet = await startPuppet(t);
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const first = send(gate, {
			key: testKeys.user,
			model: "m",
			body: { stream: false },
		});
		await eventually(() => puppet.calls.length === 1);
		first.leave();
		await gate.logged(({ outcome }) => outcome === "client_gone");
		const other = send(gate, { key: testKeys.worker, model: "m" });
		await waitUntil(gate, 1, 1);
		const [one] = puppet.calls;
		const gone = one && once(one.res, "close");
		// It generates, and says nothing before its end.
		puppet.loaded = ["m"];
		await gone;
		await eventually(() => puppet.calls.length === 2);
		const [, two] = puppet.calls;
		if (two !== undefined) answer(two);
		t.equal((await other.response).status, 200);
	},
);

t.test(
	"a load that is kept for the others ends when the queue is turned off",
	async (t) => {
		const puppet = await startPuppet(t);
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const first = send(gate, { model: "m" });
		await eventually(() => puppet.calls.length === 1);
		first.leave();
		await gate.logged(({ outcome }) => outcome === "client_gone");
		const [one] = puppet.calls;
		t.equal(one?.res.destroyed, false);
		const gone = one && once(one.res, "close");
		await gate.writeConfig({ queue: { mode: "off" } });
		await gate.daemon.reload();
		await gone;
	},
);

t.test(
	"in whatever state a client leaves, nothing of it stays behind",
	async (t) => {
		const puppet = await startPuppet(t);
		puppet.loaded = ["m"];
		const gate = await startQueued(t, { upstreamUrl: puppet.url });
		const { user, worker } = testKeys;

		const names = Promise.withResolvers<void>();
		puppet.tags = names.promise;
		const looksUp = send(gate, { key: user, model: "m" });
		await eventually(() => puppet.lookups > 0);
		looksUp.leave();
		await gate.logged(({ outcome }) => outcome === "client_gone");
		names.resolve();
		await waitUntil(gate, 0, 0);
		t.equal(puppet.calls.length, 0, "while its model is looked up");

		const runs = send(gate, { key: user, model: "m" });
		await eventually(() => puppet.calls.length === 1);
		const waits = send(gate, { key: worker, model: "m" });
		await waitUntil(gate, 1, 1);
		waits.leave();
		await waitUntil(gate, 0, 1);
		t.equal(puppet.calls.length, 1, "while it waits");

		const [running] = puppet.calls;
		const cut = running && once(running.res, "close");
		running?.res.writeHead(200, { "content-type": "application/x-ndjson" });
		running?.res.write('{"model":"m","response":"a","done":false}\n');
		await runs.response;
		runs.leave();
		await cut;
		await waitUntil(gate, 0, 0);

		const again = send(gate, { key: worker, model: "m" });
		await eventually(() => puppet.calls.length === 2);
		const [, second] = puppet.calls;
		if (second !== undefined) answer(second);
		t.equal((await again.response).status, 200);
		await waitUntil(gate, 0, 0);
	},
);

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import t, { type Test } from "tap";
import type { StandInOptions } from "../../src/ollama/standIn.ts";
import { eventually } from "../support/gate.ts";
import {
	errorOf,
	type HostsGate,
	hostsOf,
	isState,
	send,
	startHost,
	startWithHosts,
	type TestHost,
} from "../support/hosts.ts";
import { startPlainHost } from "../support/plainHost.ts";
import { startRawServer } from "../support/rawServer.ts";

type Misbehave = NonNullable<StandInOptions["misbehave"]>;

const asEntries = (...hosts: TestHost[]) =>
	hosts.map(({ name, url }) => ({ name, url }));

/** Reads a stream to its end; whether it ended as Ollama's do. */
async function isWhole(response: Response): Promise<boolean> {
	const text = await response.text().catch(() => "");
	return text.trimEnd().endsWith("}") && /"done":true/.test(text);
}

t.test(
	"of three hosts under 64 streams one is killed: the others' go on, and what was not answered is moved",
	async (t) => {
		const pace = { tokenIntervalMs: 30, firstTokenMs: 1 };
		const hangs: Misbehave = ({ headers }) =>
			headers["user-agent"] === "unanswered" ? "hang" : undefined;
		const a = await startHost(t, "a", { ...pace, misbehave: hangs });
		const b = await startHost(t, "b", pace);
		const c = await startHost(t, "c", pace);
		const gate = await startWithHosts(t, asEntries(a, b, c));
		// More than a load is worth waits on the first, so the others get their part.
		const replies = await Promise.all(
			Array.from({ length: 64 }, (_, at) =>
				send(gate, {
					body: {
						model: "qwen3:8b",
						messages: [{ role: "user", content: `conversation ${at}` }],
					},
				}),
			),
		);
		const hostOf = (response: Response) => {
			const id = response.headers.get("x-request-id");
			return gate.logged(({ reqId }) => reqId === id);
		};
		const before = await hostsOf(gate);
		for (const { outstanding } of before) t.ok(outstanding > 10);
		const unanswered = Array.from({ length: 8 }, () =>
			send(gate, { headers: { "user-agent": "unanswered" } }),
		);
		await eventually(async () => {
			const hosts = await hostsOf(gate);
			return hosts.reduce((sum, { outstanding }) => sum + outstanding, 0) >= 72;
		});
		await a.kill();
		// From the first moment on, and not after two seconds only.
		const fresh = Array.from({ length: 16 }, () => send(gate));
		for (const response of await Promise.all([...unanswered, ...fresh])) {
			t.equal(response.status, 200);
			t.ok(await isWhole(response));
		}
		for (const response of replies) {
			const whole = await isWhole(response);
			const { upstream, outcome } = await hostOf(response);
			if (upstream !== "a") t.ok(whole && outcome === "ok");
			else t.match(outcome, /ok|upstream_error/);
		}
		await isState(gate, "a", "down");
		const after = await hostsOf(gate);
		t.ok(after.every(({ outstanding }) => outstanding === 0));
		await a.start();
		await isState(gate, "a", "up");
	},
);

t.test("a host that hangs keeps none of what comes later", async (t) => {
	let hung = false;
	const a = await startHost(t, "a", {
		misbehave: () => (hung ? "never-read" : undefined),
	});
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, asEntries(a, b));
	hung = true;
	await isState(gate, "a", "suspect");
	for (let turn = 0; turn < 3; turn += 1)
		t.equal((await send(gate)).status, 200);
	t.equal(a.prompts(), 0);
	t.equal(b.prompts(), 3);
	hung = false;
	await isState(gate, "a", "up");
});

t.test("a slow host is not a dead one", async (t) => {
	let slow = false;
	const a = await startHost(t, "a", {
		misbehave: ({ method }) =>
			slow && method === "GET" ? "never-read" : undefined,
	});
	const gate = await startWithHosts(t, asEntries(a));
	slow = true;
	await isState(gate, "a", "suspect");
	t.equal((await send(gate)).status, 200, "there is no other");
});

t.test("a host that flaps loses no request", async (t) => {
	const a = await startHost(t, "a");
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, asEntries(a, b));
	let stopped = false;
	const statuses: number[] = [];
	const caller = (async () => {
		while (!stopped) {
			const response = await send(gate);
			await response.text();
			statuses.push(response.status);
		}
	})();
	for (let turn = 0; turn < 5; turn += 1) {
		await a.kill();
		const done = statuses.length;
		await eventually(() => statuses.length > done + 5);
		await a.start();
		await eventually(() => statuses.length > done + 10);
	}
	stopped = true;
	await caller;
	t.strictSame(new Set(statuses), new Set([200]));
	await isState(gate, "a", "up");
});

t.test("a host that is back with other models gets those alone", async (t) => {
	const a = await startHost(t, "a");
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, asEntries(a, b));
	await a.kill();
	await a.start({ models: ["other:1b"] });
	// Also before the gate has looked.
	for (let turn = 0; turn < 3; turn += 1)
		t.equal((await send(gate)).status, 200);
	await eventually(async () => (await hostsOf(gate))[0]?.models === 1);
	const done = a.prompts();
	t.equal((await send(gate)).status, 200);
	t.equal(a.prompts(), done);
	const other = { model: "other:1b", messages: [] };
	t.equal((await send(gate, { body: other })).status, 200);
});

const nonsense: Record<string, (socket: Socket) => void> = {
	"no HTTP": (socket) => socket.end("\0\x01 what?\r\n\r\n"),
	"a page": (socket) =>
		socket.write(
			"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 6\r\n\r\n<html>",
		),
	"another program's JSON": (socket) =>
		socket.write('HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{"ok":true}'),
	"a version without an end": (socket) => {
		socket.write("HTTP/1.1 200 OK\r\n\r\n");
		const more = () => {
			while (!socket.destroyed && socket.write("x".repeat(65_536)));
			socket.once("drain", more);
		};
		more();
	},
	"a redirect": (socket) =>
		socket.write(
			"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
		),
};

for (const [name, answer] of Object.entries(nonsense))
	t.test(`a host that answers ${name} is down, and not obeyed`, async (t) => {
		const { port } = await startRawServer(t, (socket) =>
			socket.on("data", () => answer(socket)),
		);
		const b = await startHost(t, "b");
		const gate = await startWithHosts(
			t,
			[{ name: "a", url: `http://127.0.0.1:${port}` }, ...asEntries(b)],
			{},
			false,
		);
		await isState(gate, "a", "down");
		await isState(gate, "b", "up");
		t.equal((await send(gate)).status, 200);
		t.equal((await hostsOf(gate))[0]?.requests, 0);
	});

/** Two hosts, of which the first breaks off what the calls' agent says. */
async function startBroken(
	t: Parameters<typeof startHost>[0],
	misbehaviour: ReturnType<Misbehave>,
	isBoth = false,
) {
	const breaks: Misbehave = ({ method }) =>
		method === "POST" ? misbehaviour : undefined;
	const a = await startHost(t, "a", { misbehave: breaks });
	const b = await startHost(t, "b", isBoth ? { misbehave: breaks } : {});
	const gate: HostsGate = await startWithHosts(t, asEntries(a, b));
	return { a, b, gate };
}

t.test(
	"what a host breaks off before its first byte is asked of another",
	async (t) => {
		const { a, b, gate } = await startBroken(t, "reset");
		const reply = await send(gate);
		t.equal(reply.status, 200);
		t.ok(await isWhole(reply));
		t.strictSame([a.prompts(), b.prompts()], [1, 1]);
		t.match((await hostsOf(gate))[0], { failed: 1, moved: 1 });
		t.match(await gate.logged(({ msg }) => msg === "request"), {
			upstream: "b",
			outcome: "ok",
		});
	},
);

t.test("each host is asked once at the most", async (t) => {
	const { a, b, gate } = await startBroken(t, "reset", true);
	const reply = await send(gate);
	t.equal(reply.status, 502);
	t.strictSame([a.prompts(), b.prompts()], [1, 1]);
});

t.test("never after a byte went out", async (t) => {
	const { a, b, gate } = await startBroken(t, "die-mid-stream");
	const reply = await send(gate);
	t.equal(reply.status, 200);
	t.notOk(await isWhole(reply));
	t.strictSame([a.prompts(), b.prompts()], [1, 0]);
});

t.test("a body of more than 64 KiB is not kept for another host", async (t) => {
	for (const [sizeBytes, status] of [
		[60 * 1024, 200],
		[70 * 1024, 502],
	] as const) {
		const { a, b, gate } = await startBroken(t, "reset");
		const content = "x".repeat(sizeBytes);
		const reply = await send(gate, {
			body: { model: "qwen3:8b", messages: [{ role: "user", content }] },
		});
		t.equal(reply.status, status);
		t.strictSame([a.prompts(), b.prompts()], [1, status === 200 ? 1 : 0]);
	}
});

t.test("a large body goes where a host is up", async (t) => {
	const a = await startHost(t, "a");
	const b = await startHost(t, "b");
	const gate = await startWithHosts(t, asEntries(a, b));
	await a.kill();
	await isState(gate, "a", "down");
	const content = "x".repeat(300 * 1024);
	const reply = await send(gate, {
		body: { model: "qwen3:8b", messages: [{ role: "user", content }] },
	});
	t.equal(reply.status, 200);
	t.ok(
		(b.standIn.calls.find(({ method }) => method === "POST")?.bodyBytes ?? 0) >
			300 * 1024,
	);
});

t.test(
	"where no host is up, the answer is at once, and names them",
	async (t) => {
		const a = await startHost(t, "a");
		const b = await startHost(t, "b");
		const gate = await startWithHosts(t, asEntries(a, b));
		await Promise.all([a.kill(), b.kill()]);
		await isState(gate, "a", "down");
		await isState(gate, "b", "down");
		const reply = await send(gate);
		t.equal(reply.status, 502);
		t.equal(reply.headers.get("retry-after"), "5");
		t.match(
			await errorOf(reply),
			"a is down (ECONNREFUSED); b is down (ECONNREFUSED)",
		);
	},
);

t.test("what waits for a host that goes away goes on at another", async (t) => {
	const holds: Misbehave = ({ headers }) =>
		headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined;
	const a = await startHost(t, "a", { misbehave: holds, parallel: 1 });
	const b = await startHost(t, "b", { parallel: 1 });
	const gate = await startWithHosts(t, asEntries(a, b), {
		config: { queue: { mode: "fair", parallel: 1 } },
	});
	const held = await send(gate, { headers: { "user-agent": "holds" } });
	t.equal(held.status, 200);
	const waiting = Array.from({ length: 5 }, () => send(gate));
	await eventually(async () => (await hostsOf(gate))[0]?.outstanding === 6);
	t.equal(b.prompts(), 0);
	await a.kill();
	for (const response of await Promise.all(waiting)) {
		t.equal(response.status, 200);
		t.ok(await isWhole(response));
	}
	t.equal(b.prompts(), 5);
	await held.text().catch(() => "");
});

/** A host that may stop to listen while what runs there goes on. */
async function startListening(t: Test, answers: boolean) {
	const prompts: number[] = [];
	const models = [{ name: "m:1" }];
	const own: Record<string, object> = {
		"/api/version": { version: "0.34.0" },
		"/api/ps": { models },
		"/api/tags": { models },
	};
	const server = createServer((req, res) => {
		res.setHeader("content-type", "application/json");
		if (req.method === "GET") {
			res.end(JSON.stringify(own[req.url ?? ""]));
			return;
		}
		let sizeBytes = 0;
		req.on("data", (piece: Buffer) => {
			sizeBytes += piece.length;
		});
		req.on("end", () => {
			prompts.push(sizeBytes);
			if (answers) res.end('{"done":true}');
		});
	});
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	const { port } = server.address() as AddressInfo;
	return { url: `http://127.0.0.1:${port}`, prompts, server };
}

t.test(
	"large bodies that wait for a host that goes away are not sent to it when what runs there is moved",
	async (t) => {
		const a = await startListening(t, false);
		const b = await startListening(t, true);
		const gate = await startWithHosts(
			t,
			[
				{ name: "a", url: a.url, weight: 100 },
				{ name: "b", url: b.url },
			],
			{ config: { queue: { mode: "fair", parallel: 1 } } },
		);
		const ask = (sizeBytes: number) => {
			// One conversation: all of it goes to one host.
			const messages = ["hello ".repeat(2000), "x".repeat(sizeBytes)].map(
				(content) => ({ role: "user", content }),
			);
			return send(gate, { body: { model: "m:1", stream: false, messages } });
		};
		const all = [ask(10)];
		await eventually(() => a.prompts.length === 1);
		all.push(ask(200_000), ask(200_000), ask(10));
		await eventually(async () => (await hostsOf(gate))[0]?.outstanding === 4);
		a.server.close();
		for (const response of await Promise.all(all))
			t.equal(response.status, 200);
		t.strictSame([a.prompts.length, b.prompts.length], [1, 4]);
	},
);

/** Two hosts that answer head and body in one write, of which the first is asked first. */
async function startPlain(
	t: Parameters<typeof startPlainHost>[0],
	first: Parameters<typeof startPlainHost>[2],
	second: Parameters<typeof startPlainHost>[2],
	isBehindGate = false,
	models = ["m:1"],
) {
	const a = await startPlainHost(t, models, first);
	const b = await startPlainHost(t, ["m:1"], second);
	const keyFile = isBehindGate ? { keyFile: "k" } : {};
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url: a.url, weight: 10, ...keyFile },
			{ name: "b", url: b.url, ...keyFile },
		],
		{ files: { k: `lg_${"ab".repeat(32)}\n` } },
	);
	const ask = () =>
		send(gate, { body: { model: "m:1", messages: [], stream: false } });
	return { a, b, gate, ask };
}

for (const [status, isBehindGate] of [
	[503, false],
	[429, false],
	[404, false],
	[401, false],
	[401, true],
	[403, true],
	[502, true],
	[504, true],
] as const)
	t.test(
		`of a reply with ${status} that another host's takes the place of, nothing is passed on`,
		async (t) => {
			const body = '{"error":"words of a"}';
			for (const length of [body.length, 200, 2]) {
				const { a, b, gate, ask } = await startPlain(
					t,
					() => ({ status, body, length }),
					() => ({ body: { by: "b", done: true } }),
					isBehindGate,
				);
				const reply = await ask();
				t.equal(reply.status, 200);
				t.strictSame(await reply.json(), { by: "b", done: true });
				t.strictSame([a.prompts.length, b.prompts.length], [1, 1]);
				t.match(await gate.logged(({ msg }) => msg === "request"), {
					upstream: "b",
					outcome: "ok",
				});
				t.ok((await hostsOf(gate)).every((host) => host.outstanding === 0));
			}
		},
	);

t.test(
	"a request ends where the host that it was moved to breaks off",
	async (t) => {
		const { gate, ask } = await startPlain(
			t,
			() => ({ status: 503, body: '{"error":"words', length: 200 }),
			() => "break off",
		);
		const reply = await ask();
		t.equal(reply.status, 502);
		t.notOk((await reply.text()).includes("words"));
		await eventually(async () =>
			(await hostsOf(gate)).every((host) => host.outstanding === 0),
		);
	},
);

for (const status of [503, 401])
	t.test(
		`a ${status} that no host has a better answer for is passed on as it came`,
		async (t) => {
			const answer = () => ({ status, body: { error: "not now" } });
			const { a, b, ask } = await startPlain(t, answer, answer);
			const reply = await ask();
			t.equal(reply.status, status);
			t.equal(await errorOf(reply), "not now");
			t.strictSame([a.prompts.length, b.prompts.length], [1, 1]);
		},
	);

t.test("what one prompt makes a host say takes it from nobody", async (t) => {
	const odd = "odd:1";
	for (const [status, isBehindGate] of [
		[401, true],
		[502, true],
		[504, true],
		["no HTTP", false],
	] as const) {
		const { gate } = await startPlain(
			t,
			({ model }) =>
				model === odd
					? status === "no HTTP"
						? status
						: { status, body: { error: "for this one alone" } }
					: { body: { by: "a", done: true } },
			() => ({ status: 404, body: { error: "not found" } }),
			isBehindGate,
			["m:1", odd],
		);
		const ask = async (model: string) =>
			(
				await send(gate, { body: { model, messages: [], stream: false } })
			).json();
		for (let turn = 0; turn < 3; turn += 1) {
			await ask(odd);
			t.match(await ask("m:1"), { by: "a" }, `${status}`);
		}
		t.notOk(
			gate.log.some(
				({ event, upstream, to }) =>
					event === "upstream_state" && upstream === "a" && to === "down",
			),
		);
	}
});

t.test(
	"a request is moved once where the host that fails it goes down by that",
	async (t) => {
		const a = await startHost(t, "a", { models: ["m:1"] });
		const b = await startPlainHost(t, ["m:1"], () => ({
			body: { by: "b", done: true },
		}));
		const gate = await startWithHosts(t, [
			{ name: "a", url: a.url, weight: 100 },
			{ name: "b", url: b.url },
		]);
		await a.kill();
		// One makes it a suspect, and the next that it fails makes it down.
		const replies = Array.from({ length: 8 }, () =>
			send(gate, { body: { model: "m:1", messages: [], stream: false } }),
		);
		for (const reply of replies) t.equal((await reply).status, 200);
		t.equal(b.prompts.length, 8);
		await isState(gate, "a", "down");
	},
);

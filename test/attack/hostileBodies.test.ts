import { once } from "node:events";
import { readFile } from "node:fs/promises";
import {
	setTimeout as delay,
	setImmediate as nextTurn,
} from "node:timers/promises";
import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { eventually, spawnGate, startGate, testKeys } from "../support/gate.ts";
import {
	chunk,
	framed,
	head,
	honestStatus,
	openRaw,
	post,
	type RawClient,
	shows,
	strayCalls,
	within,
} from "../support/raw.ts";

const attacker = "127.0.0.2";
const model = '{"model":"qwen3:8b","prompt":"';
/** Two keys whose bodies are judged before Ollama sees them. */
const ruled: readonly KeyEntry[] = [
	{ name: "ruled", sha256: digestOf(testKeys.user), models: ["qwen3:*"] },
	{ name: "other", sha256: digestOf(testKeys.worker), models: ["qwen3:*"] },
	{ name: "reader", sha256: digestOf(testKeys.reader), scopes: ["read"] },
];

/** As in systemd/llamagate.service: what is young takes little memory. */
const unitArgs = ["--max-semi-space-size=4", "--single-threaded-gc"];

function chunkedPost(...lines: readonly string[]): string {
	return head(
		"POST /api/embed HTTP/1.1",
		"Host: gate",
		"Transfer-Encoding: chunked",
		...lines,
	);
}

/** A JSON body in chunks of some bytes each, so many of them. */
function inChunks(count: number, sizeBytes: number): string {
	const filler = chunk("x".repeat(sizeBytes)).repeat(count - 2);
	return `${chunk(model)}${filler}${chunk('"}')}0\r\n\r\n`;
}

async function memoryMiB(
	pid: number | undefined,
	field: "VmHWM" | "VmRSS",
): Promise<number> {
	const status = await readFile(`/proc/${pid}/status`, "utf8");
	const kibibytes = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(status);
	return Number(kibibytes?.[1]) / 1024;
}

t.test(
	"a stranger's body in chunks is not read as HTTP: the connection closes behind the refusal",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port, attacker);
		client.write(chunkedPost() + chunk("x").repeat(50_000));
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.status, 401);
		t.equal(reply?.headers.connection, "close");
		await within(client.closed, "the gate to close the connection");
		t.equal(client.replies().length, 1);
		t.strictSame(strayCalls(gate), []);
	},
);

t.test(
	"a stranger who reads only when all is sent finds the refusal",
	async (t) => {
		const gate = await startGate(t);
		const client = await openRaw(gate.port, attacker);
		client.socket.pause();
		const size = 2 << 20;
		client.write(
			head("POST /api/chat HTTP/1.1", "Host: gate", `Content-Length: ${size}`) +
				"x".repeat(size),
		);
		await within(
			eventually(() => client.socket.writableLength === 0),
			"the gate to take the body",
		);
		client.socket.resume();
		t.equal((await client.untilReplies(1))[0]?.status, 401);
	},
);

t.test(
	"who is refused on a connection that closes may send a short body to its end",
	async (t) => {
		const gate = await startGate(t);
		const body = "x".repeat(60_000);
		const long = "Content-Length: 60000";
		const heads = {
			"Connection: close": head(
				...["POST /api/chat HTTP/1.1", "Host: gate", long],
				"Connection: close",
			),
			"HTTP/1.0": head("POST /api/chat HTTP/1.0", long),
			"Expect: 100-continue": framed([long, "Expect: 100-continue"], ""),
		};
		for (const [what, bytes] of Object.entries(heads)) {
			const client = await openRaw(gate.port, attacker);
			const { socket } = client;
			socket.allowHalfOpen = true;
			const ended = once(socket, "end");
			const closed = once(socket, "close");
			client.write(bytes);
			t.equal((await client.untilReplies(1))[0]?.status, 401, what);
			// No more will come, and only a system that knows of no reader resets what does.
			await ended;
			for (let at = 0; at < body.length; at += 10_000) {
				client.write(body.slice(at, at + 10_000));
				await nextTurn();
			}
			socket.end();
			t.strictSame(await closed, [false], `${what}: no reset`);
		}
	},
);

t.test(
	"a body may come in ten thousand small chunks and no more",
	async (t) => {
		const gate = await startGate(t);
		const good = await openRaw(gate.port, attacker);
		good.write(chunkedPost(shows(testKeys.user)) + inChunks(9_900, 1));
		t.equal((await good.untilReplies(1))[0]?.status, 200);
		t.equal(
			gate.standIn.calls.at(-1)?.body.length,
			model.length + 9_898 + 2,
			"it reached Ollama whole",
		);
		good.destroy();
		const bad = await openRaw(gate.port, attacker);
		bad.write(chunkedPost(shows(testKeys.owner)) + inChunks(10_500, 1));
		const [reply] = await bad.untilReplies(1);
		t.equal(reply?.status, 400);
		t.match(reply?.body, /too many small chunks/);
		await within(bad.closed, "the gate to close the connection");
	},
);

t.test("chunks of 64 bytes and more may be as many as it takes", async (t) => {
	const gate = await startGate(t);
	const client = await openRaw(gate.port, attacker);
	client.write(chunkedPost(shows(testKeys.user)) + inChunks(30_000, 64));
	t.equal((await client.untilReplies(1))[0]?.status, 200);
});

t.test(
	"one key's bodies together may have twenty thousand small chunks at once",
	async (t) => {
		const gate = await startGate(t);
		const clients: RawClient[] = [];
		for (let n = 0; n < 8; n++) {
			const client = await openRaw(gate.port, attacker);
			clients.push(client);
			client.write(chunkedPost(shows(testKeys.user)) + inChunks(9_900, 1));
		}
		const statuses = await Promise.all(
			clients.map(async (client) => (await client.untilReplies(1))[0]?.status),
		);
		t.ok(statuses.includes(200));
		t.ok(statuses.includes(429), "the others have to wait");
		t.ok(statuses.every((status) => status === 200 || status === 429));
		t.equal(await honestStatus(gate), 200);
		for (const client of clients) client.destroy();
	},
);

t.test(
	"bodies in chunks of one byte cost little memory, with rules about models too",
	{ skip: process.platform === "linux" ? false : "reads /proc" },
	async (t) => {
		const gate = await spawnGate(t, { keys: ruled });
		const before = await memoryMiB(gate.child.pid, "VmRSS");
		const flood = chunk("x").repeat(200_000);
		const clients = await Promise.all(
			Array.from({ length: 8 }, async () => {
				const client = await openRaw(gate.port, attacker);
				t.teardown(() => client.destroy());
				client.write(chunkedPost(shows(testKeys.user)) + chunk(model) + flood);
				return client;
			}),
		);
		await Promise.all(clients.map((client) => client.untilReplies(1)));
		for (const client of clients)
			t.ok([400, 429].includes(client.replies()[0]?.status ?? 0));
		t.equal(await honestStatus(gate), 200);
		const grown = (await memoryMiB(gate.child.pid, "VmHWM")) - before;
		t.ok(grown < 150, `it has grown by ${Math.round(grown)} MiB`);
	},
);

t.test(
	"a body that a rule must see whole is kept once, and its memory given back",
	{ skip: process.platform === "linux" ? false : "reads /proc" },
	async (t) => {
		const gate = await spawnGate(t, { keys: ruled });
		const before = await memoryMiB(gate.child.pid, "VmRSS");
		const body = `{"model":"no:such","prompt":"${"x".repeat(48 << 20)}"}`;
		for (let n = 0; n < 3; n++) {
			const client = await openRaw(gate.port, attacker);
			client.write(post("/api/generate", body, shows(testKeys.user)));
			t.equal((await client.untilReplies(1))[0]?.status, 403);
			client.destroy();
		}
		const grown = (await memoryMiB(gate.child.pid, "VmHWM")) - before;
		t.ok(grown < 140, `it has grown by ${Math.round(grown)} MiB`);
	},
);

t.test(
	"a body that was judged is kept no longer than until Ollama has it",
	{ skip: process.platform === "linux" ? false : "reads /proc" },
	async (t) => {
		const gate = await spawnGate(t, {
			keys: ruled,
			nodeArgs: unitArgs,
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/generate" ? "hang" : undefined,
			},
		});
		const before = await memoryMiB(gate.child.pid, "VmRSS");
		const body = `${model}${"x".repeat(48 << 20)}"}`;
		// One key may have no more than 64 MiB judged.
		for (let n = 0; n < 2; n++) {
			const client = await openRaw(gate.port, attacker);
			t.teardown(() => client.destroy());
			client.write(post("/api/generate", body, shows(testKeys.user)));
			await within(
				eventually(() => {
					const [reply] = client.replies();
					if (reply !== undefined) throw new Error(`${reply.status}`);
					return gate.standIn.calls[n]?.bodyBytes === body.length;
				}),
				"the body to reach Ollama",
			);
		}
		await within(
			eventually(
				async () => (await memoryMiB(gate.child.pid, "VmRSS")) - before < 60,
			),
			"the memory of both",
		);
	},
);

/** Sends all of a body but its last byte. */
async function hold(
	port: number,
	key: string,
	sizeBytes: number,
): Promise<RawClient> {
	const client = await openRaw(port, attacker);
	const whole = post(
		"/api/embed",
		`${model}${"x".repeat(sizeBytes - model.length - 2)}"}`,
		shows(key),
	);
	client.write(whole.slice(0, -1));
	return client;
}

t.test(
	"bodies that trickle leave room for small ones, and half of it for other keys",
	async (t) => {
		const gate = await startGate(t, {
			keys: ruled,
			config: { limits: { body: "1MiB" } },
		});
		const both = [
			await hold(gate.port, testKeys.user, 1 << 20),
			await hold(gate.port, testKeys.user, 1 << 20),
		];
		const refused = await Promise.race(
			both.map(async (client) => {
				const [reply] = await client.untilReplies(1);
				// The other one hears nothing, until this test ends it.
				if (reply !== undefined) t.equal(reply.status, 503);
				return client;
			}),
		);
		const [held] = both.filter((client) => client !== refused);
		const small = await openRaw(gate.port);
		small.write(
			post(
				"/api/embed",
				'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
				shows(testKeys.user),
			),
		);
		t.equal((await small.untilReplies(1))[0]?.status, 200);
		const others = await hold(gate.port, testKeys.worker, 1 << 20);
		others.write("}");
		t.equal((await others.untilReplies(1))[0]?.status, 200);
		t.equal(held?.replies().length, 0);
		for (const client of [...both, small, others]) client.destroy();
	},
);

t.test(
	"a large body that is judged and comes too slowly gives up its room",
	async (t) => {
		const gate = await startGate(t, {
			keys: ruled,
			config: { upstream: { idleTimeout: "1s" } },
		});
		const client = await hold(gate.port, testKeys.user, 1 << 20);
		// Never still for as long as idleTimeout; its last byte never comes.
		const drip = setInterval(() => {
			if (!client.isClosed()) client.socket.write("");
		}, 200);
		t.teardown(() => clearInterval(drip));
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.status, 408);
	},
);

t.test(
	"who shows a key and is refused in an upload over a slow link can send all of it, and reads the answer",
	async (t) => {
		const gate = await startGate(t, { config: { limits: { body: "1MiB" } } });
		for (const framing of [
			"Content-Length: 3276800",
			"Transfer-Encoding: chunked",
		]) {
			const client = await openRaw(gate.port);
			client.socket.pause();
			client.write(
				head(
					"POST /api/chat HTTP/1.1",
					"Host: gate",
					shows(testKeys.user),
					framing,
				),
			);
			// Longer than a stranger would be listened to.
			for (let n = 0; n < 50; n++) {
				const piece = "x".repeat(65_536);
				client.write(framing.startsWith("C") ? piece : chunk(piece));
				await delay(80);
			}
			t.notOk(client.isClosed(), `${framing}: it was not reset`);
			client.socket.resume();
			t.equal((await client.untilReplies(1))[0]?.status, 413, framing);
			client.destroy();
		}
	},
);

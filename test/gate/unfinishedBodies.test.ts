import t, { type Test } from "tap";
import type { GateLive } from "../../src/admin/live.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	eventually,
	type GateOptions,
	startGate,
	testKeys,
} from "../support/gate.ts";
import { askAdmin } from "../support/gatePair.ts";
import { queueOf, send, waitUntil } from "../support/queue.ts";
import { openRaw, type RawClient, shows, within } from "../support/raw.ts";

/** Whose body is still coming keeps nobody from a turn: Ollama could not begin with it. */

const keys = [
	{ name: "phone", sha256: digestOf(testKeys.user) },
	{ name: "person", sha256: digestOf(testKeys.worker) },
];

function startQueued(t: Test, options: GateOptions = {}, parallel = 1) {
	return startGate(t, {
		...options,
		config: { queue: { mode: "fair", parallel }, ...options.config },
		keys,
	});
}

/** An Ollama of which a request that says so takes the only place, until its client leaves. */
const holding: NonNullable<GateOptions["standIn"]> = {
	parallel: 1,
	misbehave: ({ headers }) =>
		headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
};

type Gate = Awaited<ReturnType<typeof startQueued>>;

/** A prompt of so many bytes that names its model and that it is a stream at once. */
function promptOf(sizeBytes: number, model = "qwen3:8b"): string {
	const start = `{"model":"${model}","stream":true,"prompt":"`;
	return `${start}${"x".repeat(sizeBytes - start.length - 2)}"}`;
}

/** Sends a prompt's head, and so many bytes of its body. */
async function begin(
	{ port }: Pick<Gate, "port">,
	body: string,
	sentBytes: number,
	...lines: string[]
): Promise<RawClient> {
	const client = await openRaw(port);
	const framing = lines.length > 0 ? lines : [`Content-Length: ${body.length}`];
	client.write(
		`${[
			"POST /api/generate HTTP/1.1",
			"Host: gate",
			"User-Agent: large",
			shows(testKeys.user),
			...framing,
		].join("\r\n")}\r\n\r\n${body.slice(0, sentBytes)}`,
	);
	return client;
}

/** The large prompts that have reached Ollama. */
const arrived = ({ standIn }: Gate) =>
	standIn.calls.filter(({ headers }) => headers["user-agent"] === "large");

/** Resolves when the gate is at work on a prompt, in that state. */
const isPhone = (gate: Gate, state: string) =>
	eventually(async () =>
		(await askAdmin<GateLive>(gate, "GET /live")).top.requests.some(
			(request) => request.key === "phone" && request.state === state,
		),
	);

/** Has another key's request answered, twice: the first may come before what is in the way. */
async function othersAreServed(gate: Gate, model = "qwen3:8b") {
	for (const _ of [1, 2]) {
		const other = send(gate, { key: testKeys.worker, model });
		const reply = await within(other.response, "another key's turn");
		if (reply.status !== 200) throw new Error(`${reply.status}`);
		await reply.text();
	}
}

for (const [sizeBytes, sentBytes, what] of [
	[1 << 20, 66 * 1024, "a body of which 66 KB have come"],
	[4 << 20, 3 << 20, "a photo of which three quarters have come"],
] as const)
	t.test(`${what} takes no place from others`, async (t) => {
		const gate = await startQueued(t);
		const body = promptOf(sizeBytes);
		const client = await begin(gate, body, sentBytes);
		await isPhone(gate, "receiving");
		await othersAreServed(gate);
		t.equal((await queueOf(gate))?.running, 0);
		t.equal(arrived(gate).length, 0);
		client.write(body.slice(sentBytes));
		t.equal((await client.untilReplies(1))[0]?.status, 200);
		t.ok(arrived(gate)[0]?.body.equals(Buffer.from(body)));
		client.destroy();
	});

t.test("a body that is still coming loads no model", async (t) => {
	const gate = await startQueued(t, { standIn: { maxLoadedModels: 1 } }, 4);
	await othersAreServed(gate);
	const body = promptOf(1 << 20, "llama3.2:3b");
	const client = await begin(gate, body, 66 * 1024);
	await isPhone(gate, "receiving");
	await othersAreServed(gate);
	t.strictSame(
		(await queueOf(gate))?.models.map(({ name }) => name),
		["qwen3:8b"],
	);
	client.write(body.slice(66 * 1024));
	t.equal((await client.untilReplies(1))[0]?.status, 200);
	client.destroy();
});

t.test(
	"a body for which there is no room comes when its turn has come, and fast enough",
	async (t) => {
		// A megabyte is held of a key's bodies.
		const gate = await startQueued(t, {
			config: {
				limits: { body: "2MiB" },
				upstream: { idleTimeout: "1s" },
				queue: { mode: "fair", parallel: 1 },
			},
		});
		const body = promptOf(2 << 20);
		const client = await begin(gate, body, body.length - 1000);
		await waitUntil(gate, 0, 1);
		// Never still for as long as idleTimeout.
		const drip = setInterval(() => client.write("x"), 100);
		t.teardown(() => clearInterval(drip));
		const other = send(gate, { key: testKeys.worker });
		await waitUntil(gate, 1, 1);
		const [reply] = await client.untilReplies(1);
		t.equal(reply?.status, 408);
		t.match(reply?.body, /too slowly/);
		t.equal((await other.response).status, 200);
		await other.text();
		client.destroy();
	},
);

for (const [how, ...lines] of [
	["with a length"],
	["in chunks", "Transfer-Encoding: chunked"],
	["after 100 Continue", `Content-Length: ${2 << 20}`, "Expect: 100-continue"],
])
	t.test(
		`a body ${how} for which there is no room goes through whole`,
		async (t) => {
			const gate = await startQueued(t, {
				standIn: holding,
				config: {
					limits: { body: "2MiB" },
					queue: { mode: "fair", parallel: 1 },
				},
			});
			const first = send(gate, { as: "holds", key: testKeys.worker });
			await first.response;
			const body = promptOf(2 << 20);
			const isChunked = lines.some((line) => line.includes("chunked"));
			const client = await begin(gate, body, 0, ...lines);
			if (lines.some((line) => line.includes("100")))
				await client.until((text) => text.includes("100 Continue"));
			client.write(
				isChunked
					? `${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`
					: body,
			);
			await waitUntil(gate, 1, 1);
			t.equal(arrived(gate).length, 0);
			first.leave();
			t.equal((await client.untilReplies(1))[0]?.status, 200);
			t.ok(arrived(gate)[0]?.body.equals(Buffer.from(body)));
			client.destroy();
		},
	);

t.test(
	"a body that is held back for want of room comes whole while it waits, once there is room",
	async (t) => {
		const gate = await startQueued(t, { standIn: holding });
		const first = send(gate, { as: "holds", key: testKeys.worker });
		await first.response;
		const ahead = await begin(gate, promptOf(20 << 20), 20 << 20);
		await waitUntil(gate, 1, 1);
		// More of it is left than sockets hold.
		const body = promptOf(28 << 20);
		const later = await begin(gate, body, body.length);
		await waitUntil(gate, 2, 1);
		t.ok(later.socket.writableLength > 0);
		ahead.destroy();
		await eventually(() => later.socket.writableLength === 0);
		await waitUntil(gate, 1, 1);
		first.leave();
		t.equal((await later.untilReplies(1))[0]?.status, 200);
		t.ok(arrived(gate).at(-1)?.body.equals(Buffer.from(body)));
		later.destroy();
	},
);

/** A gate whose only place is taken, and a client whose prompt waits there with a part of it unread. */
async function holdBack(t: Test) {
	const gate = await startQueued(t, {
		standIn: holding,
		config: {
			limits: { body: "2MiB" },
			queue: { mode: "fair", parallel: 1 },
		},
	});
	const first = send(gate, { as: "holds", key: testKeys.worker });
	await first.response;
	const body = promptOf(2 << 20);
	const client = await begin(gate, body, body.length);
	await waitUntil(gate, 1, 1);
	return { gate, first, client };
}

t.test(
	"a client that resets its connection while its body is held back is gone from the queue",
	async (t) => {
		const { gate, first, client } = await holdBack(t);
		client.socket.resetAndDestroy();
		await waitUntil(gate, 0, 1);
		first.leave();
		await othersAreServed(gate);
		t.equal(arrived(gate).length, 0);
		t.match(await gate.logged(({ key }) => key === "phone"), {
			outcome: "client_gone",
		});
	},
);

t.test(
	"Ollama hears nothing of a body whose client resets its connection just before its turn",
	async (t) => {
		const { gate, first, client } = await holdBack(t);
		client.socket.resetAndDestroy();
		first.leave();
		await waitUntil(gate, 0);
		await othersAreServed(gate);
		t.equal(arrived(gate).length, 0);
	},
);

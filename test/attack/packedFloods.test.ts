import zlib, { zstdCompressSync } from "node:zlib";
import t, { type Test } from "tap";
import { JudgedBodies } from "../../src/gate/judgedBodies.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	eventually,
	startGate,
	type TestGate,
	testKeys,
} from "../support/gate.ts";
import {
	openRaw,
	post,
	type RawClient,
	shows,
	statusOf,
	within,
} from "../support/raw.ts";

const attacker = "127.0.0.2";
const target = "/v1/chat/completions";
/** Two keys whose bodies are judged before Ollama sees them. */
const ruled: readonly KeyEntry[] = [
	{ name: "ruled", sha256: digestOf(testKeys.user), models: ["qwen3:*"] },
	{ name: "other", sha256: digestOf(testKeys.worker), models: ["qwen3:*"] },
];

const chat = (content: string) =>
	`{"model":"qwen3:8b","messages":[{"role":"user","content":"${content}"}]}`;
const short = chat("a");
/** Some hundred bytes once it is packed. */
const long = chat("x".repeat(1 << 20));

function packed(text: string, key: string): string {
	const body = zstdCompressSync(text).toString("latin1");
	return post(target, body, "Content-Encoding: zstd", shows(key));
}

/** Holds each large body behind the first piece that is read by turns, until all are let go. */
function holdTurns(t: Test) {
	const held: (() => void)[] = [];
	const turns = { count: 0, isHeld: true, letGo };
	function letGo() {
		turns.isHeld = false;
		for (const go of held.splice(0)) go();
	}
	t.intercept(JudgedBodies.prototype, "inTurn", {
		value: (
			_key: string,
			_bytes: number,
			judge: () => void,
			go: () => void,
		) => {
			turns.count += 1;
			judge();
			if (turns.isHeld) held.push(go);
			else setImmediate(go);
		},
	});
	return turns;
}

/** How many unpackings have begun. */
function countUnpackings(t: Test): () => number {
	const began = t.capture(
		zlib,
		"createZstdDecompress",
		zlib.createZstdDecompress,
	);
	let count = 0;
	return () => {
		count += began().length;
		return count;
	};
}

async function send(gate: TestGate, text: string, key: string) {
	const client = await openRaw(gate.port, attacker);
	client.write(packed(text, key));
	return client;
}

async function sendMany(gate: TestGate, count: number, key: string) {
	const clients: RawClient[] = [];
	for (let n = 0; n < count; n++) clients.push(await send(gate, long, key));
	return clients;
}

const statusFrom = async (client: RawClient) => {
	const [reply] = await client.untilReplies(1);
	client.destroy();
	return reply?.status;
};

const atWork = (gate: TestGate, count: number) =>
	within(
		eventually(async () => (await statusOf(gate)).streams === count),
		`${count} requests to be at work`,
	);

const firstTurn = (turns: { readonly count: number }) =>
	within(
		eventually(() => turns.count > 0),
		"a piece to be read by turns",
	);

t.test("packed bodies that are left cost no unpacking", async (t) => {
	const gate = await startGate(t, { keys: ruled });
	const turns = holdTurns(t);
	const began = countUnpackings(t);
	const first = await send(gate, long, testKeys.user);
	await firstTurn(turns);
	const flood = await sendMany(gate, 12, testKeys.user);
	await atWork(gate, 13);
	for (const client of flood) client.destroy();
	await atWork(gate, 1);
	turns.letGo();
	t.equal(await statusFrom(first), 200);
	t.equal(
		await statusFrom(await send(gate, short, testKeys.user)),
		200,
		"the same key goes on",
	);
	t.equal(began(), 2);
});

t.test(
	"one that is left while it is unpacked is read no further",
	async (t) => {
		const gate = await startGate(t, { keys: ruled });
		const turns = holdTurns(t);
		const client = await send(gate, long, testKeys.user);
		await firstTurn(turns);
		client.destroy();
		await atWork(gate, 0);
		turns.letGo();
		const next = await send(gate, short, testKeys.user);
		t.equal(await statusFrom(next), 200);
		t.equal(turns.count, 1);
	},
);

t.test("a packed body waits behind none of another key's", async (t) => {
	const turns = holdTurns(t);
	for (const queue of [{ mode: "off" }, { mode: "fair", parallel: 1 }]) {
		const gate = await startGate(t, { keys: ruled, config: { queue } });
		turns.isHeld = true;
		const flood = await sendMany(gate, 6, testKeys.user);
		await atWork(gate, 6);
		const next = await send(gate, short, testKeys.worker);
		t.equal(await statusFrom(next), 200);
		t.notOk(flood.some((client) => client.replies().length > 0));
		turns.letGo();
		for (const client of flood) t.equal(await statusFrom(client), 200);
	}
});

t.test("of one key 64 packed bodies may wait to be unpacked", async (t) => {
	const gate = await startGate(t, { keys: ruled });
	holdTurns(t);
	const clients = await sendMany(gate, 66, testKeys.user);
	const answered = () => clients.filter((one) => one.replies().length > 0);
	await within(
		eventually(() => answered().length > 0),
		"a refusal",
	);
	await atWork(gate, 65);
	t.equal(answered().length, 1);
	const [reply] = answered()[0]?.replies() ?? [];
	t.equal(reply?.status, 503);
	t.equal(reply?.headers["retry-after"], "5");
	for (const client of clients) client.destroy();
});

t.test(
	"a packed body is unpacked once for the rules and the queue",
	async (t) => {
		const config = { queue: { mode: "fair", parallel: 1 } };
		const gate = await startGate(t, { keys: ruled, config });
		const began = countUnpackings(t);
		for (const text of [short, long])
			t.equal(await statusFrom(await send(gate, text, testKeys.user)), 200);
		t.equal(began(), 2);
	},
);

t.test(
	"a body that waits to be unpacked is no silence of Ollama's",
	async (t) => {
		const gate = await startGate(t, {
			keys: ruled,
			config: { upstream: { firstByteTimeout: "500ms" } },
			standIn: {
				misbehave: ({ headers }) =>
					headers["user-agent"] === "unheard" ? "hang" : undefined,
			},
		});
		const turns = holdTurns(t);
		const client = await send(gate, long, testKeys.user);
		await firstTurn(turns);
		// It began later, and by its end the other has been still for longer.
		const later = await openRaw(gate.port, attacker);
		later.write(
			post(target, short, "User-Agent: unheard", shows(testKeys.worker)),
		);
		t.equal(await statusFrom(later), 504);
		turns.letGo();
		t.equal(await statusFrom(client), 200);
	},
);

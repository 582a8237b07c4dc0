import path from "node:path";
import t, { type Test } from "tap";
import { askLiveOn } from "../../src/admin/live.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import type { Misbehaviour } from "../../src/ollama/standIn.ts";
import {
	bearer,
	eventually,
	type GateOptions,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { queueOf } from "../support/queue.ts";
import { startRawServer } from "../support/rawServer.ts";

const [user] = testEntries as [KeyEntry];
const completions = ["/v1/chat/completions", "/v1/completions"];
const families = [
	...["/api/chat", "/api/generate", "/v1/responses", "/v1/messages"],
	...completions,
];

function startWith(t: Test, tokens: number, more: GateOptions = {}) {
	const keys = [{ ...user, budget: { tokens, per: "day" as const } }];
	return startGate(t, { keys, ...more });
}

function send(
	{ url }: TestGate,
	call: string,
	more: object = {},
	signal?: AbortSignal,
): Promise<Response> {
	return fetch(`${url}${call}`, {
		method: "POST",
		headers: bearer(testKeys.user),
		body: JSON.stringify({
			...{ model: "qwen3:8b", prompt: "a", input: "a", stream: true },
			...{ messages: [{ role: "user", content: "a" }], max_tokens: 20 },
			...more,
		}),
		...(signal && { signal }),
	});
}

/** Sends a request and returns its status once the gate has charged it. */
async function ask(gate: TestGate, call: string, more: object = {}) {
	const ended = () =>
		gate.log.filter(({ msg, key }) => msg === "request" && key === "user")
			.length;
	const before = ended();
	const reply = await send(gate, call, more);
	await reply.text().catch(() => {});
	await eventually(() => ended() > before);
	return reply.status;
}

/** Tokens that the key has used of its budget. */
async function usedIn({ folder }: TestGate): Promise<number | undefined> {
	const asked = await askLiveOn(path.join(folder, "admin.sock"));
	if (asked.kind !== "live") throw new Error(asked.why);
	return asked.live.budgets[0]?.used.tokens;
}

t.test(
	"a budget holds for streams of which Ollama tells no count",
	async (t) => {
		for (const call of completions) {
			const gate = await startWith(t, 50);
			for (const used of [20, 40, 60]) {
				t.equal(await ask(gate, call), 200);
				t.equal(await usedIn(gate), used, call);
			}
			t.equal(await ask(gate, call), 429, call);
			t.ok(
				gate.log.every(({ tokensOut = null }) => tokensOut === null),
				"the log has what Ollama tells, and no more",
			);
		}
	},
);

t.test(
	"a stream that Ollama breaks off is charged what passed of it",
	async (t) => {
		for (const fault of ["truncate", "die-mid-stream"] as Misbehaviour[])
			for (const call of families) {
				const gate = await startWith(t, 7, {
					standIn: { misbehave: () => fault, tokenIntervalMs: 1 },
				});
				for (const used of [4, 8]) {
					t.equal(await ask(gate, call), 200);
					t.equal(await usedIn(gate), used, `${call}, ${fault}`);
				}
				t.equal(await ask(gate, call), 429, call);
				t.equal(
					gate.log.filter(({ outcome }) => outcome === "upstream_error").length,
					2,
				);
			}
	},
);

t.test("what Ollama counted is charged, and nothing beside it", async (t) => {
	const gate = await startWith(t, 10_000);
	const options = { num_predict: 20 };
	let used = 0;
	for (const call of families)
		for (const stream of [true, false]) {
			const more = { options, stream, stream_options: { include_usage: true } };
			t.equal(await ask(gate, call, more), 200);
			const line = gate.log.findLast(({ msg }) => msg === "request");
			t.equal(line?.tokensOut, 20, call);
			used += 20 + Number(line?.tokensIn);
			t.equal(await usedIn(gate), used, call);
		}
});

const event = `data: ${JSON.stringify({
	...{ id: "chatcmpl-1", object: "chat.completion.chunk", model: "qwen3:8b" },
	choices: [{ index: 0, delta: { content: "a" }, finish_reason: null }],
})}\n\n`;
const head =
	"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
const chunk = (text: string) => `${text.length.toString(16)}\r\n${text}\r\n`;

t.test(
	"many events in one read are as many tokens, to whoever leaves too",
	async (t) => {
		let ending = `${chunk("data: [DONE]\n\n")}0\r\n\r\n`;
		const { port } = await startRawServer(t, (socket) => {
			socket.on("data", () =>
				socket.write(head + chunk(event.repeat(300)) + ending),
			);
		});
		const upstreamUrl = `http://127.0.0.1:${port}`;
		const config = { queue: { mode: "off" } };
		const gate = await startWith(t, 500, { upstreamUrl, config });
		const [call = ""] = completions;
		t.equal(await ask(gate, call), 200);
		t.equal(await usedIn(gate), 300);

		// This one does not end, and is left.
		ending = "";
		const controller = new AbortController();
		const reply = await send(gate, call, {}, controller.signal);
		const reader = reply.body?.getReader();
		let came = 0;
		while (came < event.length * 300)
			came += (await reader?.read())?.value?.length ?? 0;
		controller.abort();
		await gate.logged(({ outcome }) => outcome === "client_gone");
		t.equal(await usedIn(gate), 600);
		t.equal(await ask(gate, call), 429);
	},
);

t.test(
	"a stream without a count shows that the GPU works for it",
	async (t) => {
		const gate = await startWith(t, 10_000, {
			config: { queue: { mode: "fair", parallel: "auto" } },
			standIn: {
				parallel: 2,
				misbehave: ({ headers }) =>
					headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
			},
		});
		// It holds its slot, and the next is a try.
		const held = new AbortController();
		await fetch(`${gate.url}/v1/completions`, {
			method: "POST",
			headers: { ...bearer(testKeys.user), "user-agent": "holds" },
			body: JSON.stringify({ model: "qwen3:8b", prompt: "a", stream: true }),
			signal: held.signal,
		});
		t.equal(await ask(gate, "/v1/completions"), 200);
		t.equal((await queueOf(gate))?.models[0]?.slots, 2);
		held.abort();
	},
);

import { once } from "node:events";
import { request } from "node:http";
import { text } from "node:stream/consumers";
import t, { type Test } from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import { bearer, startGate, testKeys } from "../support/gate.ts";
import { send, waitUntil } from "../support/queue.ts";

const holder: KeyEntry = { name: "b", sha256: digestOf(testKeys.worker) };
const waits: KeyEntry = { name: "a", sha256: digestOf(testKeys.user) };
const inADay = new Date(Date.now() + 86_400_000).toISOString();

/** A gate whose one place is taken by another key, until its client leaves. */
async function startTaken(t: Test, entry: KeyEntry = waits, queue = {}) {
	const gate = await startGate(t, {
		standIn: {
			misbehave: ({ headers }) =>
				headers["user-agent"] === "holds" ? "stall-mid-stream" : undefined,
		},
		config: { queue: { mode: "fair", parallel: 1, ...queue } },
		keys: [holder, entry],
	});
	const held = send(gate, { as: "holds", key: testKeys.worker });
	await held.response;
	return {
		gate,
		leave: held.leave,
		/** Puts another entry in place of the one whose request waits. */
		async change(now: KeyEntry, ...others: KeyEntry[]) {
			await gate.writeKeys([now, ...others, holder]);
			t.match(await gate.daemon.reload(), { ok: true });
		},
		/** What has reached Ollama, by the names that the calls were given. */
		served: () =>
			gate.standIn.calls
				.filter(({ method }) => method === "POST")
				.map(({ headers }) => headers["user-agent"]),
	};
}

for (const [what, changed] of Object.entries<Partial<KeyEntry>>({
	"its models": { models: ["llama3.2:3b"] },
	"its options": { maxOptions: { num_ctx: 4096 } },
	"its budget": { budget: { per: "day", requests: 5 } },
}))
	t.test(
		`a change of what a key may, ${what}, reaches a request that waits`,
		async (t) => {
			const { gate, change, leave, served } = await startTaken(t);
			const waiting = send(gate, { as: "waits" });
			await waitUntil(gate, 1);
			await change({ ...waits, ...changed });
			const reply = await waiting.response;
			t.equal(reply.status, 503);
			t.equal(reply.headers.get("retry-after"), "1");
			t.match(await gate.logged(({ key }) => key === "a"), {
				outcome: "refused",
				reason: "key_changed",
			});
			await waitUntil(gate, 0, 1);
			leave();
			await waitUntil(gate, 0, 0);
			t.same(served(), ["holds"]);
		},
	);

t.test("a change of nothing that a key may leaves what waits", async (t) => {
	const { gate, change, leave } = await startTaken(t, {
		...waits,
		models: ["qwen3:*"],
	});
	const waiting = send(gate, { as: "waits" });
	await waitUntil(gate, 1);
	await change(
		{
			...waits,
			sha256: digestOf(testKeys.owner),
			previous: [{ sha256: digestOf(testKeys.user), expires: inADay }],
			models: ["qwen3:*"],
			created: inADay,
			expires: inADay,
			limits: { concurrent: 9 },
			share: 2,
			priority: "batch",
			scopes: ["read", "infer", "manage"],
		},
		{ name: "c", sha256: digestOf(testKeys.reader) },
	);
	await waitUntil(gate, 1);
	leave();
	t.equal((await waiting.response).status, 200);
});

t.test("a change leaves what runs", async (t) => {
	const { gate, change, leave } = await startTaken(t);
	await gate.writeKeys([waits, { ...holder, models: ["llama3.2:3b"] }]);
	t.match(await gate.daemon.reload(), { ok: true });
	await waitUntil(gate, 0, 1);
	await change(waits);
	await waitUntil(gate, 0, 1);
	leave();
	t.match(await gate.logged(({ key }) => key === "b"), {
		outcome: "client_gone",
	});
});

t.test("a change reaches a request whose body still comes", async (t) => {
	const { gate, change } = await startTaken(t);
	const req = request(`${gate.url}/api/chat`, {
		method: "POST",
		headers: {
			...bearer(testKeys.user),
			"content-length": 1000,
			expect: "100-continue",
		},
	});
	req.on("error", () => {});
	req.flushHeaders();
	await once(req, "continue");
	const answered = once(req, "response");
	await change({ ...waits, models: ["llama3.2:3b"] });
	const [res] = await answered;
	t.equal(res.statusCode, 503);
	t.match(await text(res), "have just been changed");
});

t.test("a stream that was told how long it waits is told of it", async (t) => {
	const { gate, change } = await startTaken(t, waits, { announceAfter: "1ms" });
	const waiting = send(gate, {
		path: "/v1/chat/completions",
		body: { stream: true },
	});
	t.equal((await waiting.response).status, 200);
	await change({ ...waits, models: ["llama3.2:3b"] });
	t.match(await gate.logged(({ key }) => key === "a"), {
		outcome: "cut",
		reason: "key_changed",
	});
	await t.rejects(waiting.text(), "it is broken off");
});

t.test("a rule for a person reaches what that one waits for", async (t) => {
	const app = (
		...rules: NonNullable<KeyEntry["people"]>["rules"] & object
	) => ({
		...waits,
		people: { trust: "headers" as const, rules },
	});
	const carol = { email: "carol@example.com" };
	const dave = { email: "dave@example.com" };
	const { gate, change, leave } = await startTaken(t, app(carol, dave));
	const as = ({ email }: { email: string }) =>
		send(gate, { as: email, headers: { "x-openwebui-user-email": email } });
	const ofCarol = as(carol);
	const ofDave = as(dave);
	await waitUntil(gate, 2);
	await change(
		app(
			{ ...carol, share: 3 },
			{ ...dave, models: ["llama3.2:3b"] },
			{ email: "new@example.com" },
		),
	);
	t.equal((await ofDave.response).status, 503);
	await waitUntil(gate, 1);
	leave();
	t.equal((await ofCarol.response).status, 200);
});

import { once } from "node:events";
import { createServer } from "node:http";
import path from "node:path";
import t, { type Test } from "tap";
import { askLiveOn, type GateLive } from "../../src/admin/live.ts";
import type { Exchange } from "../../src/gate/exchange.ts";
import { RecentRequests } from "../../src/gate/recent.ts";
import {
	bearer,
	eventually,
	startGate,
	type TestGate,
	temporaryFolder,
	testEntries,
	testKeys,
} from "../support/gate.ts";

const [user, ...others] = testEntries;

async function liveOf({ folder }: TestGate): Promise<GateLive> {
	const asked = await askLiveOn(path.join(folder, "admin.sock"));
	if (asked.kind !== "live") throw new Error(asked.why);
	return asked.live;
}

function generate({ url }: TestGate, key: string = testKeys.user, more = {}) {
	return fetch(`${url}/api/generate`, {
		method: "POST",
		headers: bearer(key),
		body: JSON.stringify({ model: "qwen3:8b", prompt: "a", ...more }),
	});
}

t.test(
	"one answer has who is at work, tokens, first tokens, refusals, budgets and what is loaded",
	async (t) => {
		if (user === undefined) throw new Error("no key");
		const gate = await startGate(t, {
			// Each token is a piece of its own.
			standIn: { tokenIntervalMs: 5 },
			keys: [
				{ ...user, budget: { gpu: "1h", requests: 4, per: "day" } },
				...others,
			],
		});
		const fresh = await liveOf(gate);
		t.match(fresh, {
			top: { atWork: 0, requests: [] },
			pieces: 0,
			firstTokens: { tenMinutes: { count: 0, medianMs: null, p95Ms: null } },
			refusals: [],
			loaded: [],
		});
		await (await generate(gate)).text();
		await generate(gate, testKeys.wrong);
		await generate(gate, testKeys.wrong);
		await generate(gate, testKeys.reader);
		const { loaded, ...live } = await liveOf(gate);
		t.ok(live.pieces > 2);
		t.match(live, {
			firstTokens: {
				lastMinute: { count: 1, medianMs: Number, p95Ms: Number },
				tenMinutes: { count: 1 },
			},
			refusals: [
				{ reason: "wrong_key", count: 2 },
				{ reason: "scope", count: 1 },
			],
			budgets: [
				{
					key: "user",
					per: "day",
					used: { requests: 1 },
					limits: { gpuMs: 3_600_000, requests: 4 },
					isKnown: false,
					untilKnown: "batch",
				},
			],
		});
		t.ok(Date.parse(live.budgets[0]?.resetsAt ?? "") > Date.now());
		await eventually(async () => (await liveOf(gate)).loaded?.length === 1);
		t.match((await liveOf(gate)).loaded, [
			{ name: "qwen3:8b", sizeBytes: Number, vramBytes: Number },
		]);
		t.notMatch(JSON.stringify(await liveOf(gate)), /lg_|Bearer/);
	},
);

t.test("tokens of what still runs are counted", async (t) => {
	const gate = await startGate(t, {
		standIn: { misbehave: () => "stall-mid-stream" },
	});
	const held = await generate(gate);
	t.teardown(() => held.body?.cancel());
	await eventually(async () => (await liveOf(gate)).pieces > 0);
	t.match((await liveOf(gate)).top, { atWork: 1 });
});

t.test("whoever watches does not have Ollama asked at each look", async (t) => {
	const gate = await startGate(t);
	await Promise.all(Array.from({ length: 20 }, () => liveOf(gate)));
	t.equal(
		gate.standIn.calls.filter(({ target }) => target === "/api/ps").length,
		1,
	);
});

t.test("an Ollama that does not answer is told of as that", async (t) => {
	const gate = await startGate(t, { standIn: { misbehave: () => "reset" } });
	t.equal((await liveOf(gate)).loaded, null);
});

t.test("to look at a budget is no news of it", async (t) => {
	if (user === undefined) throw new Error("no key");
	const gate = await startGate(t, {
		keys: [{ ...user, budget: { requests: 1, per: "day" } }],
	});
	await (await generate(gate)).text();
	await liveOf(gate);
	await generate(gate);
	t.match(await gate.logged(({ event }) => event === "budget_exhausted"), {
		key: "user",
	});
});

t.test("what is remembered of the last minutes has bounds", async (t) => {
	const recent = new RecentRequests();
	const streamed = (ttftMs: number) =>
		({
			route: { scope: "infer" },
			piecesOut: 2,
			status: 200,
			ttftMs,
		}) as unknown as Exchange;
	for (let n = 0; n < 10_000; n += 1) {
		recent.note(streamed(n), "ok", n);
		recent.noteRefusal(`reason ${n}`, 0);
	}
	t.equal(recent.firstTokens(60_000, 10_000).count, 2_048);
	t.match(recent.firstTokens(99, 9_999), {
		count: 100,
		medianMs: 9_949,
		p95Ms: 9_994,
	});
	t.equal(recent.refusals(0).length, 65);
	t.match(recent.refusals(0)[0], { reason: "other", count: 10_000 - 64 });
	const minuteMs = 60_000;
	for (let minute = 1; minute < 100; minute += 1)
		recent.noteRefusal("no_key", minute * minuteMs);
	t.strictSame(recent.refusals(99 * minuteMs), [
		{ reason: "no_key", count: 10 },
	]);
	t.strictSame(recent.refusals(105 * minuteMs), [
		{ reason: "no_key", count: 4 },
	]);
	t.strictSame(recent.refusals(1_000 * minuteMs), []);
	t.equal(recent.pieces, 20_000);
});

async function answering(t: Test, body: string): Promise<string> {
	const socket = path.join(await temporaryFolder(t), "admin.sock");
	const server = createServer((_, res) => res.end(body));
	t.teardown(() => server.close());
	await once(server.listen(socket), "listening");
	return socket;
}

t.test("what is no gate's answer is taken for none", async (t) => {
	const gate = await startGate(t);
	const good = await liveOf(gate);
	t.match(await askLiveOn(await answering(t, JSON.stringify(good))), {
		kind: "live",
	});
	const loadedModel = {
		...{ name: "a", sizeBytes: 1, vramBytes: 1, expiresAt: null },
	};
	for (const wrong of [
		null,
		[],
		{ ...good, startedAt: "yesterday" },
		{ ...good, top: undefined },
		{ ...good, top: { ...good.top, requests: [null] } },
		{ ...good, pieces: "1" },
		{ ...good, firstTokens: {} },
		{ ...good, refusals: [null] },
		{ ...good, budgets: [{ key: "a" }] },
		{ ...good, loaded: [{ name: 1 }] },
		{ ...good, loaded: [{ ...loadedModel, host: 1 }] },
		{ ...good, loaded: undefined },
	])
		t.match(
			await askLiveOn(await answering(t, JSON.stringify(wrong))),
			{ kind: "strange" },
			JSON.stringify(wrong),
		);
	t.match(await askLiveOn("/nonexistent/admin.sock"), { kind: "silent" });
});

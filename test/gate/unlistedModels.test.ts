import t from "tap";
import {
	errorOf,
	isState,
	send,
	startHost,
	startWithHosts,
	type TestHost,
} from "../support/hosts.ts";
import { startPlainHost } from "../support/plainHost.ts";

const messages = [{ role: "user", content: "hi" }];
const prompt = { model: "qwen3:8b", messages, stream: false };
const typo = { body: { ...prompt, model: "qwen3:8c" } };
const key = `lg_${"ab".repeat(32)}`;

/** Two hosts, of which the second alone has what is asked for. */
async function twoHosts(
	t: Parameters<typeof startHost>[0],
): Promise<[TestHost, TestHost]> {
	return [
		await startHost(t, "a", { models: ["llama3.2:3b"] }),
		await startHost(t, "b", { models: ["qwen3:8b"], firstTokenMs: 300 }),
	];
}

t.test(
	"a model whose host is down is not said to be missing by another",
	async (t) => {
		const [a, b] = await twoHosts(t);
		const gate = await startWithHosts(t, [
			{ name: "a", url: a.url },
			{ name: "b", url: b.url },
		]);
		await b.kill();
		await isState(gate, "b", "down");
		for (const path of ["/api/chat", "/v1/chat/completions", "/api/show"]) {
			const reply = await send(gate, { path, body: prompt });
			t.equal(reply.status, 502, path);
			t.equal(reply.headers.get("retry-after"), "5");
			t.match(await errorOf(reply), /now: b is down \(/);
		}
		t.equal(a.prompts(), 0, "nor is another asked");
		const none = await send(gate, typo);
		t.equal(none.status, 404, "one that no host had is");
		t.match(await errorOf(none), "not found");
		await b.start();
		const during = async () => (await send(gate, { body: prompt })).status;
		await isState(gate, "b", "half-open", "up");
		const statuses = await Promise.all([during(), during(), during()]);
		t.notOk(statuses.includes(404), "nor while it is tried");
	},
);

t.test("a model whose host is full is not missing, either", async (t) => {
	const [a, b] = await twoHosts(t);
	const gate = await startWithHosts(
		t,
		[
			{ name: "a", url: a.url },
			{ name: "b", url: b.url },
		],
		{ config: { upstream: { maxConnections: 1 }, queue: { mode: "off" } } },
	);
	const ask = async () => (await send(gate, { body: prompt })).status;
	const statuses = await Promise.all([ask(), ask()]);
	t.strictSame(statuses.sort(), [200, 503]);
});

t.test(
	"a host that was never seen may have what its entry leaves to it",
	async (t) => {
		const [a] = await twoHosts(t);
		const gate = await startWithHosts(
			t,
			[
				{ name: "a", url: a.url },
				{ name: "away", url: "http://127.0.0.1:1", models: ["qwen3:8b"] },
			],
			{},
			false,
		);
		await isState(gate, "away", "down");
		const unseen = await send(gate, { body: prompt });
		t.equal(unseen.status, 502);
		t.match(
			await errorOf(unseen),
			"away is down (ECONNREFUSED) and has not said yet what it has",
		);
		t.equal((await send(gate, typo)).status, 404);
	},
);

t.test("the first request waits until each host was asked", async (t) => {
	const a = await startHost(t, "a", { models: ["llama3.2:3b"] });
	for (const others of [[], [{ name: "a", url: a.url }]]) {
		let say = () => {};
		const isAsked = new Promise<void>((resolve) => {
			say = resolve;
		});
		const far = await startPlainHost(
			t,
			["qwen3:8b"],
			() => ({ body: { by: "far", done: true } }),
			() => isAsked,
		);
		const gate = await startWithHosts(
			t,
			[...others, { name: "far", url: far.url, keyFile: "k" }],
			{ files: { k: `${key}\n` } },
			false,
		);
		const first = send(gate, { body: prompt });
		const version = send(gate, { path: "/api/version", method: "GET" });
		if (others.length > 0)
			t.equal((await version).status, 200, "what another can answer does not");
		say();
		t.match(await (await first).json(), { by: "far" });
		t.equal((await version).status, 200);
	}
});

t.test(
	"what a managing call brings can be used behind its reply",
	async (t) => {
		const a = await startHost(t, "a");
		const b = await startHost(t, "b");
		const gate = await startWithHosts(t, [
			{ name: "b", url: b.url },
			{ name: "a", url: a.url },
		]);
		const there = { "x-llamagate-upstream": "a" };
		const pulled = await send(gate, {
			path: "/api/pull",
			body: { model: "pulled:1b" },
			headers: there,
		});
		t.match(await pulled.text(), "success");
		const copied = await send(gate, {
			path: "/api/copy",
			body: { source: "qwen3:8b", destination: "copied" },
			headers: there,
		});
		t.equal(copied.status, 200);
		for (const model of ["pulled:1b", "copied"])
			t.equal((await send(gate, { body: { model, messages } })).status, 200);
	},
);

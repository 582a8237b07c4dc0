import { once } from "node:events";
import { request } from "node:http";
import { connect } from "node:net";
import t from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import {
	bearer,
	eventually,
	isWholeReply,
	startGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";

const get = (url: string, key: string) =>
	fetch(`${url}/api/version`, { headers: bearer(key) });

t.test(
	"a key may make so many requests a minute, and is told how many are left",
	async (t) => {
		const gate = await startGate(t, {
			config: { limits: { perKey: { requestsPerMinute: 3 } } },
		});
		for (const left of ["2", "1", "0"]) {
			const response = await get(gate.url, testKeys.user);
			t.equal(response.status, 200);
			t.equal(response.headers.get("ratelimit-limit"), "3");
			t.equal(response.headers.get("ratelimit-remaining"), left);
			t.ok(Number(response.headers.get("ratelimit-reset")) <= 60);
		}
		const refused = await get(gate.url, testKeys.user);
		t.equal(refused.status, 429);
		t.ok(Number(refused.headers.get("retry-after")) > 0);
		t.equal(refused.headers.get("ratelimit-remaining"), "0");
		t.match(await refused.json(), {
			error: /the key "user" may make 3 requests a minute/,
		});
		t.equal(
			(await get(gate.url, testKeys.owner)).status,
			200,
			"another key is not touched",
		);
		t.equal(gate.standIn.calls.length, 4);
		const openai = await fetch(`${gate.url}/v1/models`, {
			headers: bearer(testKeys.user),
		});
		t.match(await openai.json(), {
			error: { message: String, type: "api_error" },
		});
	},
);

t.test("a key's own limit comes before the configuration's", async (t) => {
	const gate = await startGate(t, {
		keys: [
			{
				name: "a",
				sha256: digestOf(testKeys.user),
				limits: { requestsPerMinute: 1 },
			},
		],
	});
	t.equal((await get(gate.url, testKeys.user)).status, 200);
	t.equal((await get(gate.url, testKeys.user)).status, 429);
});

t.test("one request is not called requests", async (t) => {
	const gate = await startGate(t, {
		keys: [
			{
				name: "a",
				sha256: digestOf(testKeys.user),
				limits: { requestsPerMinute: 1 },
			},
		],
	});
	await get(gate.url, testKeys.user);
	t.match(await (await get(gate.url, testKeys.user)).json(), {
		error: 'the key "a" may make 1 request a minute',
	});
});

t.test(
	"an address may make so many requests a minute, whatever its keys",
	async (t) => {
		const gate = await startGate(t, {
			config: { limits: { perSource: { requestsPerMinute: 2 } } },
		});
		t.equal((await get(gate.url, testKeys.user)).status, 200);
		t.equal((await get(gate.url, testKeys.owner)).status, 200);
		const refused = await get(gate.url, testKeys.reader);
		t.equal(refused.status, 429);
		t.match(await refused.json(), {
			error: /this address may make 2 requests a minute/,
		});

		const socket = connect({
			port: gate.port,
			host: "127.0.0.1",
			localAddress: "127.0.0.2",
		});
		socket.setEncoding("latin1");
		socket.write(
			`GET /api/version HTTP/1.1\r\nhost: x\r\nauthorization: Bearer ${testKeys.reader}\r\n\r\n`,
		);
		let reply = "";
		while (!isWholeReply(reply)) reply += (await once(socket, "data"))[0];
		t.match(reply, /^HTTP\/1\.1 200 /, "another address is not touched");
		socket.destroy();
	},
);

t.test(
	"a key may have so many requests at work at once; reading takes no place",
	async (t) => {
		const gate = await startGate(t, {
			standIn: {
				misbehave: ({ target }) =>
					target === "/api/chat" ? "hang" : undefined,
			},
			keys: [
				{
					name: "a",
					sha256: digestOf(testKeys.user),
					limits: { concurrent: 2 },
				},
				...testEntries.filter(({ name }) => name !== "user"),
			],
		});
		const chat = (key: string) =>
			fetch(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(key),
				body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			});
		const hanging = [1, 2].map(() => {
			const req = request(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.user),
			});
			req.on("error", () => {});
			req.end(
				'{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			);
			return req;
		});
		await eventually(() => gate.standIn.calls.length === 2);
		const refused = await chat(testKeys.user);
		t.equal(refused.status, 429);
		t.ok(Number(refused.headers.get("retry-after")) > 0);
		t.match(await refused.json(), {
			error: /may have 2 requests at work at once/,
		});
		t.equal(
			(await get(gate.url, testKeys.user)).status,
			200,
			"a list may be read",
		);
		const embed = await fetch(`${gate.url}/api/embed`, {
			method: "POST",
			headers: bearer(testKeys.worker),
			body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
		});
		t.equal(embed.status, 200, "another key is not touched");
		hanging[0]?.destroy();
		await eventually(async () => {
			const response = await fetch(`${gate.url}/api/embed`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			});
			await response.arrayBuffer();
			return response.status === 200;
		});
		t.pass("a place that is left is given back");
		hanging[1]?.destroy();
	},
);

t.test("a place is given back however a request ends", async (t) => {
	let turn = 0;
	const faults = [
		"reset",
		"garbage",
		"die-mid-stream",
		"truncate",
		"redirect",
		undefined,
	] as const;
	const gate = await startGate(t, {
		standIn: { misbehave: () => faults[turn++ % faults.length] },
		keys: [
			{ name: "a", sha256: digestOf(testKeys.user), limits: { concurrent: 1 } },
		],
	});
	for (let i = 0; i < 24; i++) {
		await eventually(async () => {
			const response = await fetch(`${gate.url}/api/chat`, {
				method: "POST",
				headers: bearer(testKeys.user),
				body: '{"model":"qwen3:8b","messages":[{"role":"user","content":"a"}]}',
			});
			await response.text().catch(() => {});
			return response.status !== 429;
		});
	}
	t.equal(turn, 24);
});

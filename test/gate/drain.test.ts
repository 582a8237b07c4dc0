import { once } from "node:events";
import { connect } from "node:net";
import t from "tap";
import { bearer, spawnGate, testKeys } from "../support/gate.ts";

const chat = (url: string, tokens: number) =>
	fetch(`${url}/api/chat`, {
		method: "POST",
		headers: bearer(testKeys.user),
		body: JSON.stringify({
			model: "qwen3:8b",
			messages: [{ role: "user", content: "a" }],
			options: { num_predict: tokens },
		}),
	});

t.test(
	"SIGTERM closes the door, lets a stream finish, and exits 0",
	async (t) => {
		const gate = await spawnGate(t, {
			standIn: { tokenIntervalMs: 10 },
			config: { drainTimeout: "30s" },
		});
		const response = await chat(gate.url, 50);
		gate.child.kill("SIGTERM");
		await gate.logged(({ msg }) => msg === "stopping");
		const socket = connect(gate.port, "127.0.0.1");
		const [error] = await once(socket, "error");
		t.equal(error.code, "ECONNREFUSED", "nobody new gets in");
		t.match(await response.text(), /"done":true/, "the stream came to its end");
		t.equal(await gate.exited, 0);
		t.match(gate.log.at(-1), { msg: "stopped" });
	},
);

t.test(
	"a stream that outlasts drainTimeout is cut with an error in the stream",
	async (t) => {
		const gate = await spawnGate(t, {
			standIn: { tokenIntervalMs: 10 },
			config: { drainTimeout: "200ms" },
		});
		const response = await chat(gate.url, 1_000_000);
		gate.child.kill("SIGTERM");
		let text = "";
		await t.rejects(async () => {
			if (response.body === null) return;
			const decoder = new TextDecoder();
			for await (const chunk of response.body)
				text += decoder.decode(chunk, { stream: true });
		}, "it does not end cleanly");
		t.match(text, /\n\{"error":"llamagate is shutting down"\}\n$/);
		t.equal(await gate.exited, 0);
	},
);

t.test("a second SIGTERM does not wait", async (t) => {
	const gate = await spawnGate(t, {
		standIn: { tokenIntervalMs: 10 },
		config: { drainTimeout: "1h" },
	});
	const response = await chat(gate.url, 1_000_000);
	gate.child.kill("SIGTERM");
	await gate.logged(({ msg }) => msg === "stopping");
	gate.child.kill("SIGTERM");
	t.equal(await gate.exited, 0);
	await t.rejects(response.text());
});

t.test("idle keep-alive connections do not hold a stop up", async (t) => {
	const gate = await spawnGate(t, { config: { drainTimeout: "1h" } });
	const response = await fetch(`${gate.url}/api/tags`, {
		headers: bearer(testKeys.user),
	});
	await response.text();
	const silent = connect(gate.port, "127.0.0.1");
	await once(silent, "connect");
	silent.on("error", () => {});
	gate.child.kill("SIGTERM");
	t.equal(await gate.exited, 0);
});

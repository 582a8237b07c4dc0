import t from "tap";
import { eventually } from "../support/gate.ts";
import { hostsOf, isState, send, startWithHosts } from "../support/hosts.ts";
import { startLlamaServer } from "./llamaServer.ts";
import { startOllama } from "./ollama.ts";

const messages = [{ role: "user", content: "Count to three." }];
const options = { num_predict: 24, temperature: 0 };

t.test(
	"two Ollamas and a llama-server are one address, and one of them may be killed",
	async (t) => {
		const env = { OLLAMA_NUM_PARALLEL: "1", OLLAMA_CONTEXT_LENGTH: "512" };
		const a = await startOllama(t, { env });
		const b = await startOllama(t, { env });
		const llama = await startLlamaServer(t);
		const gate = await startWithHosts(
			t,
			[
				{ name: "a", url: a.url },
				{ name: "b", url: b.url },
				{ name: "llama", url: llama.url, kind: "openai" },
			],
			{ config: { queue: { mode: "fair", parallel: 1 } } },
		);
		const names = async (path: string) => {
			const reply = await send(gate, { path, method: "GET" });
			const { models, data } = (await reply.json()) as Record<
				string,
				{ name: string; id: string }[]
			>;
			return (models ?? data ?? []).map(({ name, id }) => name ?? id).sort();
		};
		t.strictSame(await names("/api/tags"), ["other:latest", "smol:latest"]);
		t.strictSame(await names("/v1/models"), [
			"llama",
			"other:latest",
			"smol:latest",
		]);

		const byLlama = await send(gate, {
			path: "/v1/chat/completions",
			body: { model: "llama", messages, stream: true, max_tokens: 8 },
		});
		t.equal(byLlama.status, 200);
		t.match(await byLlama.text(), /data: \[DONE\]\s*$/);
		t.match(
			await gate.logged(({ route }) => route === "POST /v1/chat/completions"),
			{ upstream: "llama", outcome: "ok" },
		);

		const ask = async (model: string) => {
			const reply = await send(gate, { body: { model, messages, options } });
			// One that is broken off is not whole.
			const text = await reply.text().catch(() => "");
			return reply.status === 200 && /"done":true/.test(text);
		};
		t.ok(await ask("smol"));
		t.strictSame(await names("/api/ps"), ["smol:latest"]);
		const where = (await hostsOf(gate)).map(({ requests }) => requests);
		t.strictSame(where, [1, 0, 1], "the first that has it");

		// Six wait for the one slot of the host that has it loaded; it is killed meanwhile.
		const running = Array.from({ length: 6 }, () => ask("smol"));
		await eventually(async () => (await hostsOf(gate))[0]?.outstanding === 6);
		await a.stop("SIGKILL");
		const done = await Promise.all(running);
		// What had begun to answer is broken off; all else is answered by the other.
		t.ok(done.filter((isWhole) => isWhole).length >= 5);
		await isState(gate, "a", "down");
		t.ok(await ask("smol"));
		t.ok(await ask("other"));
		t.strictSame(await names("/api/tags"), ["other:latest", "smol:latest"]);
	},
);

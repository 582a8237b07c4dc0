import t, { type Test } from "tap";
import { digestOf } from "../../src/keys/newKey.ts";
import { eventually, startGate, testKeys } from "../support/gate.ts";
import { send } from "../support/queue.ts";
import { statusOf } from "../support/raw.ts";
import { startOllama } from "./ollama.ts";

/** A gate that is not told how many requests this Ollama works on at once. */
async function startLearning(t: Test, parallel: string) {
	const ollama = await startOllama(t, {
		version: "0.32.15",
		env: { OLLAMA_NUM_PARALLEL: parallel },
	});
	const gate = await startGate(t, {
		upstreamUrl: ollama.url,
		keys: [
			{
				...{ name: "one", sha256: digestOf(testKeys.user) },
				scopes: ["read", "infer"],
			},
		],
		config: { queue: { mode: "fair", parallel: "auto" } },
	});
	const slots = async () => (await statusOf(gate)).queue?.models[0]?.slots;
	const ask = (tokens: number) =>
		send(gate, {
			model: "smol",
			body: { options: { num_predict: tokens, temperature: 0 } },
		});
	await ask(2).text();
	return { gate, slots, ask };
}

t.test("requests without a prompt are no sign of a place more", async (t) => {
	const { gate, slots, ask } = await startLearning(t, "1");
	const long = ask(1000);
	await long.response;
	const empty = send(gate, {
		...{ model: "smol", path: "/v1/completions" },
		body: { prompt: "", stream: true },
	});
	// It is sent beyond the one place, and answered at once.
	t.match(await empty.text(), /"finish_reason":"load"/);
	t.equal(await slots(), 1);
	long.leave();
});

t.test("places that there are, are found", async (t) => {
	const { slots, ask } = await startLearning(t, "2");
	let isOver = false;
	const users = [1, 2, 3].map(async () => {
		while (!isOver) await ask(60).text();
	});
	await eventually(async () => (await slots()) === 2);
	isOver = true;
	await Promise.all(users);
});

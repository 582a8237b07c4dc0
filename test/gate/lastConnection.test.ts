import t from "tap";
import { eventually, startGate } from "../support/gate.ts";
import { oneAtWork } from "../support/oneAtWork.ts";
import { answer, startPuppet } from "../support/puppet.ts";
import { queueOf, waitUntil } from "../support/queue.ts";

t.test(
	"Ollama goes away with the only connection: that request fails, the others go on",
	async (t) => {
		const puppet = await startPuppet(t);
		const { prompts } = puppet;
		const gate = await startGate(t, {
			upstreamUrl: puppet.url,
			config: {
				upstream: { maxConnections: 1 },
				queue: { mode: "fair", parallel: 4 },
			},
		});
		const [first, ...others] = await oneAtWork(gate, puppet, 3);
		puppet.refuse();
		prompts[0]?.req.socket.destroy();
		t.equal((await first)?.status, 502);
		t.match(await queueOf(gate), { waiting: { normal: 3 } });
		puppet.listen();
		for (let turn = 1; turn <= others.length; turn += 1) {
			await eventually(() => prompts.length === turn + 1);
			answer(prompts[turn]);
		}
		for (const other of others) t.equal((await other).status, 200);
		await waitUntil(gate, 0, 0);
	},
);

import t from "tap";
import { eventually, startGate } from "../support/gate.ts";
import { allAre, send } from "../support/hosts.ts";
import { body, oneAtWork } from "../support/oneAtWork.ts";
import { answer, startPuppet } from "../support/puppet.ts";
import { queueOf, waitUntil } from "../support/queue.ts";

const queue = { mode: "fair", parallel: 1 };

for (const [what, upstream] of [
	["a time limit", { idleTimeout: "6m" }],
	["limits of connections", { connectTimeout: "7s", maxConnections: 50 }],
] as const)
	t.test(
		`a reload that changes ${what} sends the one Ollama nothing beyond its places`,
		async (t) => {
			const puppet = await startPuppet(t);
			const { prompts } = puppet;
			const gate = await startGate(t, {
				upstreamUrl: puppet.url,
				config: { queue },
			});
			const asked = await oneAtWork(gate, puppet, 2);
			await gate.writeConfig({ upstream, queue });
			t.match(await gate.daemon.reload(), { ok: true });
			asked.push(send(gate, { body }));
			await waitUntil(gate, 3);
			t.match(await queueOf(gate), { running: 1 });
			for (let turn = 1; turn <= asked.length; turn += 1) {
				await eventually(() => prompts.length >= turn);
				await waitUntil(gate, asked.length - turn, 1);
				t.equal(prompts.length, turn);
				answer(prompts[turn - 1]);
			}
			for (const reply of asked) t.equal((await reply).status, 200);
			t.match(await queueOf(gate), { running: 0 });
		},
	);

t.test(
	"what waits for the one Ollama goes to another at once whose address a reload names",
	async (t) => {
		const [before, after] = [await startPuppet(t), await startPuppet(t)];
		const gate = await startGate(t, {
			upstreamUrl: before.url,
			config: { queue },
		});
		const [running, waiting] = await oneAtWork(gate, before, 1);
		await gate.writeConfig({ upstream: { url: after.url }, queue });
		t.match(await gate.daemon.reload(), { ok: true });
		await eventually(() => after.prompts.length === 1);
		for (const { prompts } of [before, after]) answer(prompts[0]);
		t.equal((await running)?.status, 200);
		t.equal((await waiting)?.status, 200);
	},
);

t.test(
	"requests from before a reload count among those that may be with Ollama after it",
	async (t) => {
		const puppet = await startPuppet(t);
		const config = (maxConnections: number) => ({
			upstream: { maxConnections, connectTimeout: `${maxConnections}s` },
		});
		const gate = await startGate(t, {
			upstreamUrl: puppet.url,
			config: config(3),
		});
		const running = [send(gate, { body }), send(gate, { body })];
		await eventually(() => puppet.prompts.length === 2);
		await gate.writeConfig(config(2));
		t.match(await gate.daemon.reload(), { ok: true });
		t.equal((await send(gate, { body })).status, 503);
		for (const prompt of puppet.prompts) answer(prompt);
		for (const reply of running) t.equal((await reply).status, 200);
		const next = send(gate, { body });
		await eventually(() => puppet.prompts.length === 3);
		answer(puppet.prompts[2]);
		t.equal((await next).status, 200);
	},
);

for (const [from, to] of [
	["upstream", "upstreams"],
	["upstreams", "upstream"],
] as const)
	for (const mode of ["off", "fair"])
		t.test(
			`so they do from ${from} to ${to}, with the queue ${mode}`,
			async (t) => {
				const puppet = await startPuppet(t);
				const { url, prompts } = puppet;
				const config = (section: typeof from | typeof to) => ({
					upstream: {
						maxConnections: 2,
						...(section === "upstream" && { url }),
					},
					...(section === "upstreams" && { upstreams: [{ name: "a", url }] }),
					queue: { mode, parallel: 4 },
				});
				const gate = await startGate(t, { config: config(from) });
				await allAre(gate, "up");
				const asked = [send(gate, { body }), send(gate, { body })];
				await eventually(() => prompts.length === 2);
				await gate.writeConfig(config(to));
				t.match(await gate.daemon.reload(), { ok: true });
				await allAre(gate, "up");
				const third = send(gate, { body });
				if (mode === "off") t.equal((await third).status, 503);
				else {
					asked.push(third);
					await waitUntil(gate, 1, 2);
				}
				t.equal(prompts.length, 2);
				answer(prompts[0]);
				await Promise.race(asked);
				if (mode === "off") asked.push(send(gate, { body }));
				await eventually(() => prompts.length === 3);
				for (const prompt of prompts) answer(prompt);
				for (const reply of asked) t.equal((await reply).status, 200);
			},
		);

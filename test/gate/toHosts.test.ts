import t from "tap";
import { eventually, startGate } from "../support/gate.ts";
import { hostsOf, isState, send, startWithHosts } from "../support/hosts.ts";
import { body, oneAtWork } from "../support/oneAtWork.ts";
import { answer, startPuppet } from "../support/puppet.ts";
import { waitUntil } from "../support/queue.ts";

/** A reload puts several hosts in the place of one Ollama, or the other way. */

const queue = { mode: "fair", parallel: 1 };
const key = `lg_${"ab".repeat(32)}`;

t.test(
	"what waits for the one Ollama keeps its turn there until a host has its model, and goes there with its key",
	async (t) => {
		const one = await startPuppet(t);
		const far = await startPuppet(t, true);
		const gate = await startGate(t, {
			upstreamUrl: one.url,
			config: { queue },
			files: { k: `${key}\n` },
		});
		const asked = await oneAtWork(gate, one, 3);
		const upstreams = [{ name: "far", url: far.url, keyFile: "k" }];
		await gate.writeConfig({ upstreams, queue });
		t.match(await gate.daemon.reload(), { ok: true });
		await eventually(() => far.asked > 0);
		await waitUntil(gate, 3);
		t.strictSame([one.prompts.length, far.prompts.length], [1, 0]);
		answer(one.prompts[0]);
		await eventually(() => one.prompts.length === 2);
		await waitUntil(gate, 2);
		far.wake();
		await eventually(() => far.prompts.length === 1);
		await waitUntil(gate, 1);
		t.equal(far.prompts[0]?.req.headers.authorization, `Bearer ${key}`);
		answer(one.prompts[1]);
		answer(far.prompts[0]);
		await eventually(() => far.prompts.length === 2);
		answer(far.prompts[1]);
		for (const reply of asked) t.equal((await reply).status, 200);
		t.strictSame([one.prompts.length, far.prompts.length], [2, 2]);
		await waitUntil(gate, 0, 0);
	},
);

t.test(
	"the one Ollama that becomes one of several hosts gets no more at once than before",
	async (t) => {
		const one = await startPuppet(t);
		const gate = await startGate(t, {
			upstreamUrl: one.url,
			config: { queue },
		});
		const asked = await oneAtWork(gate, one, 2);
		const upstreams = [{ name: "a", url: one.url }];
		await gate.writeConfig({ upstreams, queue });
		t.match(await gate.daemon.reload(), { ok: true });
		await isState(gate, "a", "up");
		asked.push(send(gate, { body }));
		await waitUntil(gate, 3, 1);
		t.match(await hostsOf(gate), [{ outstanding: 4 }]);
		for (const at of [0, 1, 2, 3]) {
			await eventually(() => one.prompts.length > at);
			await waitUntil(gate, 3 - at, 1);
			t.equal(one.prompts.length, at + 1);
			answer(one.prompts[at]);
		}
		for (const reply of asked) t.equal((await reply).status, 200);
		await waitUntil(gate, 0, 0);
		t.match(await hostsOf(gate), [{ outstanding: 0 }]);
	},
);

t.test(
	"what waits for a host keeps its turn there when one Ollama takes the place of all",
	async (t) => {
		const one = await startPuppet(t);
		const far = await startPuppet(t);
		const upstreams = [{ name: "far", url: far.url, keyFile: "k" }];
		const gate = await startWithHosts(t, upstreams, {
			config: { queue },
			files: { k: `${key}\n` },
		});
		const asked = await oneAtWork(gate, far, 2);
		await gate.writeConfig({ upstream: { url: one.url }, queue });
		t.match(await gate.daemon.reload(), { ok: true });
		t.same(await hostsOf(gate), []);
		asked.push(send(gate, { body }));
		await eventually(() => one.prompts.length === 1);
		answer(one.prompts[0]);
		await waitUntil(gate, 2);
		for (const at of [0, 1, 2]) {
			await eventually(() => far.prompts.length === at + 1);
			answer(far.prompts[at]);
		}
		for (const reply of asked) t.equal((await reply).status, 200);
		for (const { req } of far.prompts)
			t.equal(req.headers.authorization, `Bearer ${key}`);
	},
);

t.test(
	"the host that becomes the one Ollama gets no more at once than before",
	async (t) => {
		const one = await startPuppet(t);
		const upstreams = [{ name: "a", url: one.url }];
		const gate = await startWithHosts(t, upstreams, { config: { queue } });
		const asked = await oneAtWork(gate, one, 2);
		await gate.writeConfig({ upstream: { url: one.url }, queue });
		t.match(await gate.daemon.reload(), { ok: true });
		asked.push(send(gate, { body }));
		for (const at of [0, 1, 2, 3]) {
			await waitUntil(gate, 3 - at, 1);
			await eventually(() => one.prompts.length > at);
			t.equal(one.prompts.length, at + 1);
			answer(one.prompts[at]);
		}
		for (const reply of asked) t.equal((await reply).status, 200);
		await waitUntil(gate, 0, 0);
	},
);

t.test(
	"what waits for the one Ollama goes in its turn to the one that takes its place",
	async (t) => {
		const one = await startPuppet(t);
		const next = await startPuppet(t);
		const gate = await startGate(t, {
			upstreamUrl: one.url,
			config: { queue },
		});
		const asked = await oneAtWork(gate, one, 2);
		await gate.writeConfig({ upstream: { url: next.url }, queue });
		t.match(await gate.daemon.reload(), { ok: true });
		answer(one.prompts[0]);
		for (const at of [0, 1]) {
			await eventually(() => next.prompts.length === at + 1);
			answer(next.prompts[at]);
		}
		for (const reply of asked) t.equal((await reply).status, 200);
		t.equal(one.prompts.length, 1);
	},
);

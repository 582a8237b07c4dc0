import t, { type Test } from "tap";
import { bearer, eventually, startGate, testKeys } from "../support/gate.ts";
import { isState, send, startWithHosts } from "../support/hosts.ts";
import { jumpingClock } from "../support/jumpingClock.ts";
import { body, oneAtWork } from "../support/oneAtWork.ts";
import { answer, type Puppet, startPuppet } from "../support/puppet.ts";
import { waitUntil } from "../support/queue.ts";

/** What becomes of those who wait for an Ollama that says nothing any more, or nonsense, and breaks nothing off. */

const queue = { mode: "fair", parallel: 1 };

async function startWithOneHost(t: Test) {
	const a = await startPuppet(t);
	const upstreams = [{ name: "a", url: a.url }];
	return { a, gate: await startWithHosts(t, upstreams, { config: { queue } }) };
}

t.test(
	"what waits for a host that has gone without a word hears it, and what comes once it is back is served",
	async (t) => {
		const pass = jumpingClock(t);
		const { a, gate } = await startWithOneHost(t);
		const [first, ...waiting] = await oneAtWork(gate, a, 2);
		a.isSilent = true;
		await isState(gate, "a", "suspect");
		pass(60_000);
		for (const reply of waiting) t.equal((await reply).status, 502);
		t.equal(a.prompts.length, 1, "none of them was sent");
		a.wake();
		await isState(gate, "a", "up");
		const next = send(gate, { body });
		await eventually(() => a.prompts.length === 2);
		answer(a.prompts[1]);
		t.equal((await next).status, 200);
		answer(a.prompts[0]);
		t.equal((await first)?.status, 200, "it may have worked all the while");
		await waitUntil(gate, 0, 0);
	},
);

t.test(
	"what waits for a host that is back within five seconds has the place of what was with it",
	async (t) => {
		const pass = jumpingClock(t);
		const { a, gate } = await startWithOneHost(t);
		const asked = await oneAtWork(gate, a, 1);
		a.isSilent = true;
		await isState(gate, "a", "suspect");
		pass(60_000);
		await isState(gate, "a", "down");
		a.wake();
		await eventually(() => a.prompts.length === 2);
		for (const prompt of a.prompts) answer(prompt);
		for (const reply of asked) t.equal((await reply).status, 200);
		await waitUntil(gate, 0, 0);
	},
);

t.test(
	"what waits for a host that is no Ollama any more hears it, and its prompt never goes there",
	async (t) => {
		const a = await startPuppet(t);
		const upstreams = [{ name: "a", url: a.url, keyFile: "k" }];
		const gate = await startWithHosts(t, upstreams, {
			config: { queue },
			files: { k: `lg_${"ab".repeat(32)}\n` },
		});
		const asked = await oneAtWork(gate, a, 1);
		a.nonsense = "It works!";
		await isState(gate, "a", "down");
		a.prompts[0]?.res.destroy();
		for (const reply of asked) t.equal((await reply).status, 502);
		t.equal(a.prompts.length, 1);
		a.nonsense = undefined;
		await isState(gate, "a", "up");
		const next = send(gate, { body });
		await eventually(() => a.prompts.length === 2);
		answer(a.prompts[1]);
		t.equal((await next).status, 200);
	},
);

t.test(
	"a stream that goes on while its host takes no connection keeps its place",
	async (t) => {
		const { a, gate } = await startWithOneHost(t);
		const first = await startStream(gate.url, a);
		a.refuse();
		await isState(gate, "a", "down");
		a.listen();
		await isState(gate, "a", "up");
		const next = send(gate, { body });
		await waitUntil(gate, 1, 1);
		t.equal(a.prompts.length, 1);
		first.end();
		await eventually(() => a.prompts.length === 2);
		answer(a.prompts[1]);
		t.equal((await next).status, 200);
		await waitUntil(gate, 0, 0);
	},
);

t.test("what waits for the one Ollama hears that it is silent", async (t) => {
	const pass = jumpingClock(t);
	const ollama = await startPuppet(t);
	const gate = await startGate(t, {
		upstreamUrl: ollama.url,
		config: { queue },
	});
	const [first, ...waiting] = await oneAtWork(gate, ollama, 2);
	ollama.isSilent = true;
	const { asked } = ollama;
	await eventually(() => ollama.asked > asked + 1);
	pass(60_000);
	for (const reply of waiting) t.equal((await reply).status, 502);
	const late = send(gate, { body });
	t.equal((await late).status, 502, "who comes now hears it too");
	const next = send(gate, { body });
	await waitUntil(gate, 1);
	ollama.wake();
	answer(ollama.prompts[0]);
	t.equal((await first)?.status, 200);
	await eventually(() => ollama.prompts.length === 2);
	answer(ollama.prompts[1]);
	t.equal((await next).status, 200);
});

t.test("an Ollama whose reply goes on is not taken for silent", async (t) => {
	const pass = jumpingClock(t);
	const ollama = await startPuppet(t);
	const gate = await startGate(t, {
		upstreamUrl: ollama.url,
		config: { queue },
	});
	const first = await startStream(gate.url, ollama);
	const next = send(gate, { body });
	await waitUntil(gate, 1);
	ollama.isSilent = true;
	const { asked } = ollama;
	await eventually(() => ollama.asked > asked + 1);
	pass(60_000);
	const later = ollama.asked;
	await eventually(() => ollama.asked > later + 4);
	await waitUntil(gate, 1);
	first.end();
	await eventually(() => ollama.prompts.length === 2);
	answer(ollama.prompts[1]);
	t.equal((await next).status, 200);
});

/** A stream of which something comes again and again, until it is ended. */
async function startStream(url: string, { prompts }: Puppet) {
	const reply = fetch(`${url}/api/chat`, {
		method: "POST",
		headers: bearer(testKeys.owner),
		body: JSON.stringify({ ...body, stream: true }),
	});
	await eventually(() => prompts.length === 1);
	const { res } = prompts[0] ?? {};
	res?.setHeader("content-type", "application/x-ndjson");
	const says = () => res?.write('{"model":"m","done":false}\n');
	says();
	const timer = setInterval(says, 200);
	void (await reply).text();
	return {
		end() {
			clearInterval(timer);
			res?.end('{"model":"m","done":true}\n');
		},
	};
}

import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import { digestOf } from "../../src/keys/newKey.ts";
import type { Misbehaviour } from "../../src/ollama/standIn.ts";
import { eventually, type TestGate, testKeys } from "../support/gate.ts";
import { send, startHost, startWithHosts, statusOf } from "../support/hosts.ts";
import { jumpingClock } from "../support/jumpingClock.ts";
import { startPlainHost } from "../support/plainHost.ts";

const key: KeyEntry = {
	name: "user",
	sha256: digestOf(testKeys.user),
	budget: { gpu: "1h", per: "day" },
};

interface Teardown {
	teardown(action: () => unknown): unknown;
}

const prompt = (gate: TestGate, padding = "") =>
	send(gate, {
		key: testKeys.user,
		body: { model: "qwen3:8b", messages: [], stream: false, padding },
	});

/** Seconds of the GPU that the key was charged. */
async function charged(gate: TestGate): Promise<number> {
	const { budgets = [] } = await statusOf(gate);
	const [budget] = budgets;
	if (budget === undefined) throw new Error("there is no budget");
	return (budget.used.gpuMs ?? 0) / 1_000;
}

/** Two hosts, of which the first takes prompts and does so with them, and the second answers unless it does so, too. */
async function startTwo(
	t: Teardown,
	first: Misbehaviour,
	config: Record<string, unknown> = {},
	second?: Misbehaviour,
) {
	const a = await startHost(t, "a", {
		misbehave: ({ method }) => (method === "POST" ? first : undefined),
	});
	const b = await startHost(t, "b", {
		misbehave: ({ method }) => (method === "POST" ? second : undefined),
	});
	const upstreams = [
		{ name: "a", url: a.url, weight: 10 },
		{ name: "b", url: b.url },
	];
	const gate = await startWithHosts(t, upstreams, { keys: [key], config });
	return { a, b, gate };
}

const impatient = { upstream: { firstByteTimeout: "500ms" } };

t.test(
	"a request that a host is silent to goes on at another, and its time is charged",
	async (t) => {
		const pass = jumpingClock(t);
		const { a, b, gate } = await startTwo(t, "hang", impatient);
		const asked = prompt(gate);
		await eventually(() => a.prompts() === 1);
		pass(40_000);
		t.equal((await asked).status, 200);
		t.equal(b.prompts(), 1);
		await eventually(() => a.standIn.activeCalls() === 0);
		await eventually(async () => (await charged(gate)) >= 40);
		t.ok((await charged(gate)) < 60);
		const { hosts = [] } = await statusOf(gate);
		t.match(
			hosts.map(({ state, failed, moved }) => ({ state, failed, moved })),
			[
				{ failed: 1, moved: 1 },
				{ state: "up", failed: 0, moved: 0 },
			],
		);
		t.not(hosts[0]?.state, "down", "it answers the gate's own questions");
	},
);

t.test(
	"a request that every host is silent to is asked once of each",
	async (t) => {
		const { a, b, gate } = await startTwo(t, "hang", impatient, "hang");
		const reply = await prompt(gate);
		t.equal(reply.status, 504);
		t.strictSame([a.prompts(), b.prompts()], [1, 1]);
		for (const { state } of (await statusOf(gate)).hosts ?? [])
			t.not(state, "down");
	},
);

t.test(
	"what is too large to be kept for another host stays with a silent one",
	async (t) => {
		const { a, b, gate } = await startTwo(t, "hang", impatient);
		const reply = await prompt(gate, "x".repeat(80 * 1024));
		t.equal(reply.status, 504);
		t.strictSame([a.prompts(), b.prompts()], [1, 0]);
	},
);

t.test("the time at a host that then failed is charged", async (t) => {
	const pass = jumpingClock(t);
	const { a, b, gate } = await startTwo(t, "hang");
	const asked = prompt(gate);
	await eventually(() => a.prompts() === 1);
	pass(40_000);
	await a.kill();
	t.equal((await asked).status, 200);
	t.equal(b.prompts(), 1);
	await eventually(async () => (await charged(gate)) >= 40);
	t.ok((await charged(gate)) < 60, "and that of the other as ever");
});

t.test("of a host that cannot be reached nothing is", async (t) => {
	const { a, b, gate } = await startTwo(t, "hang");
	await a.kill();
	t.equal((await prompt(gate)).status, 200);
	t.equal(b.prompts(), 1);
	await gate.logged(({ msg }) => msg === "request");
	t.ok((await charged(gate)) < 5);
});

for (const [status, isCharged] of [
	[503, false],
	[429, false],
	[502, true],
	[504, true],
] as const)
	t.test(
		`what another gate refuses with ${status} ${isCharged ? "was worked on" : "was not"}`,
		async (t) => {
			const pass = jumpingClock(t);
			const answer = { status: 200, body: { done: true } };
			const a = await startPlainHost(t, ["m:1"], () => {
				pass(40_000);
				return { status, body: { error: "no" } };
			});
			const b = await startPlainHost(t, ["m:1"], () => answer);
			const keyFile = "k";
			const gate = await startWithHosts(
				t,
				[
					{ name: "a", url: a.url, keyFile, weight: 10 },
					{ name: "b", url: b.url, keyFile },
				],
				{ keys: [key], files: { [keyFile]: `lg_${"ab".repeat(32)}\n` } },
			);
			const body = { model: "m:1", messages: [], stream: false };
			const reply = await send(gate, { key: testKeys.user, body });
			t.equal(reply.status, 200);
			await reply.text();
			t.strictSame([a.prompts.length, b.prompts.length], [1, 1]);
			await gate.logged(({ msg }) => msg === "request");
			const seconds = await charged(gate);
			t.ok(
				isCharged ? seconds >= 40 && seconds < 60 : seconds < 20,
				`${seconds}`,
			);
		},
	);

import t from "tap";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import {
	bearer,
	eventually,
	type GateOptions,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import {
	askAdmin,
	sharesWith,
	startPair,
	stateOf,
	whileShared,
} from "../support/gatePair.ts";
import { ledgerPlace, spawnLedger } from "../support/ledger.ts";
import {
	requireValkey,
	startProxy,
	startValkey,
	type TestValkey,
} from "../support/valkey.ts";

const [user] = testEntries as [KeyEntry];

const withBudget = (
	budget: NonNullable<KeyEntry["budget"]>,
	config: Record<string, unknown> = {},
): GateOptions => ({
	keys: [{ ...user, budget }],
	// Without a ledger a key's earlier use is not known, and it is served as batch.
	config: { budgets: { withoutLedger: "batch" }, ...config },
});

async function post(
	{ url }: Pick<TestGate, "url">,
	key: string = testKeys.user,
): Promise<number> {
	const reply = await fetch(`${url}/api/generate`, {
		method: "POST",
		headers: bearer(key),
		body: '{"model":"qwen3:8b","prompt":"a"}',
	});
	await reply.text();
	return reply.status;
}

/** How many of so many, one after the other, are served. */
async function served(gate: TestGate, count: number): Promise<number> {
	let sum = 0;
	for (let at = 0; at < count; at += 1)
		if ((await post(gate)) === 200) sum += 1;
	return sum;
}

t.test(
	"a group's budget, hammered with two keys at two gates, is one budget",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const group = "family";
		const { result: statuses } = await whileShared(
			t,
			valkey.url,
			{
				keys: testEntries.slice(0, 2).map((key) => ({
					...key,
					group,
					budget: { requests: 1_000, per: "week" as const },
				})),
				config: {
					budgets: {
						withoutLedger: "batch",
						groups: { family: { requests: 10, per: "day" } },
					},
				},
			},
			([one, other]) =>
				Promise.all(
					Array.from({ length: 30 }, (_, at) =>
						post(at % 2 ? one : other, at % 3 ? testKeys.user : testKeys.owner),
					),
				),
		);
		const counts = Object.groupBy(statuses, String);
		t.equal(counts["200"]?.length, 10);
		t.equal(counts["429"]?.length, 20);
	},
);

t.test(
	"a budget of ten requests that is hammered at two gates is ten requests",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const { gates, result: statuses } = await whileShared(
			t,
			valkey.url,
			withBudget({ requests: 10, per: "day" }),
			([one, other]) =>
				Promise.all(
					Array.from({ length: 30 }, (_, at) => post(at % 2 ? one : other)),
				),
		);
		const counts = Object.groupBy(statuses, String);
		t.strictSame(Object.keys(counts), ["200", "429"]);
		t.equal(counts["200"]?.length, 10);
		for (const gate of gates) {
			t.equal(await post(gate), 429);
			await gate.logged(({ reason }) => reason === "budget_exceeded");
		}
	},
);

t.test(
	"tokens that were used at one gate are missing at the other, also after both have ended",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const options = withBudget({ tokens: 30, per: "month" });
		const [one, other] = await startPair(t, valkey.url, options);
		const first = await served(one, 1);
		t.equal(first, 1);
		let all = first;
		while ((await post(other)) === 200) all += 1;
		t.equal(await post(one), 429);
		t.ok(all > 1);
		await one.daemon.stop();
		await other.daemon.stop();

		const next = await startGate(t, {
			...options,
			config: { ...options.config, state: { url: valkey.url } },
		});
		await sharesWith(next, 1);
		t.equal(await post(next), 429);
	},
);

t.test("gates say what is left of a budget of all", async (t) => {
	if (!requireValkey(t)) return;
	const valkey = await startValkey(t);
	const options = withBudget({ requests: 5, per: "month" });
	const [one, other] = await startPair(t, valkey.url, options);
	const left: (string | null)[] = [];
	for (const gate of [one, other, one, other, one]) {
		const reply = await fetch(`${gate.url}/api/generate`, {
			method: "POST",
			headers: bearer(testKeys.user),
			body: '{"model":"qwen3:8b","prompt":"a"}',
		});
		await reply.text();
		left.push(reply.headers.get("x-llamagate-budget-remaining"));
	}
	t.strictSame(left, [null, null, null, "requests=1", "requests=0"]);
	await other.logged(({ event }) => event === "budget_low");
	await one.logged(({ event }) => event === "budget_exhausted");
});

t.test(
	"with Valkey away the last known sums go on, and one that was restarted empty is told them",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const options = withBudget({ requests: 12, per: "week" });
		const [ended, other] = await startPair(t, valkey.url, options);
		const one = await startGate(t, {
			...options,
			config: { ...options.config, state: { url: valkey.url } },
		});
		t.equal(await served(ended, 4), 4);
		await ended.daemon.stop();
		t.equal(await served(other, 3), 3);
		t.equal(await served(one, 2), 2);
		await valkey.kill();
		await eventually(async () => !(await stateOf(one)).isConnected);
		t.equal(await served(one, 4), 3, "nine were used, and it knows of all");

		await startValkey(t, { port: valkey.port });
		for (const gate of [one, other])
			await eventually(async () => (await stateOf(gate)).isConnected);
		await eventually(async () => (await post(other)) === 429);
		const next = await startGate(t, {
			...options,
			config: { ...options.config, state: { url: valkey.url } },
		});
		await sharesWith(next, 3);
		t.equal(await post(next), 429, "what the ended gate used is not lost");
	},
);

t.test("the budgets of many gates that have ended are one sum", async (t) => {
	if (!requireValkey(t)) return;
	const valkey = await startValkey(t);
	const gate = await startGate(t, {
		...withBudget({ requests: 100, per: "day" }),
		config: { state: { url: valkey.url } },
	});
	await sharesWith(gate, 1);
	t.equal(await post(gate), 200);
	const [key = ""] =
		/\{llamagate\}:budget:[\w-]+/.exec(await valkey.command("KEYS", "*")) ?? [];
	for (let at = 0; at < 70; at += 1)
		await valkey.command("HSET", key, `gate${at}`, "0 0 1");
	t.equal(await post(gate), 200);
	t.equal(await valkey.command("HLEN", key), ":2\r\n");
	t.equal(
		await valkey.command("HGET", key, "ended"),
		"$6\r\n0 0 70\r\n",
		"and no more of it is lost",
	);
	t.equal(await served(gate, 40), 28);
});

/** Has a gate lose its connection to Valkey, which keeps its data, and waits until it is back. */
async function flap(valkey: TestValkey, gate: TestGate): Promise<void> {
	const { losses } = await stateOf(gate);
	await valkey.command("CLIENT", "KILL", "TYPE", "normal");
	await eventually(async () => {
		const state = await stateOf(gate);
		return state.losses > losses && state.isConnected;
	});
}

/** The hash of the one budget, and the gates that have used something of it. */
async function budgetIn(valkey: TestValkey) {
	const [key = ""] =
		/\{llamagate\}:budget:[\w-]+/.exec(await valkey.command("KEYS", "*")) ?? [];
	const fields = await valkey.command("HKEYS", key);
	return { key, gates: fields.match(/^[0-9a-f]{16}$/gm) ?? [] };
}

const thirtyADay = withBudget({ requests: 30, per: "day" });

/** A gate that shares this budget, with so many, itself included. */
async function startSharing(
	t: Parameters<typeof startGate>[0],
	url: string,
	gates: number,
): Promise<Awaited<ReturnType<typeof startGate>>> {
	const config = { ...thirtyADay.config, state: { url } };
	const gate = await startGate(t, { ...thirtyADay, config });
	await sharesWith(gate, gates);
	return gate;
}

t.test(
	"what a gate used before its restart is counted once, however often the connection to Valkey breaks",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const before = await startSharing(t, valkey.url, 1);
		t.equal(await served(before, 8), 8);
		await before.daemon.stop();
		const after = await startSharing(t, valkey.url, 1);
		for (let turn = 0; turn < 3; turn += 1) {
			t.equal(await served(after, 1), 1);
			await flap(valkey, after);
		}
		t.equal(await served(after, 30), 30 - 8 - 3);
	},
);

t.test(
	"what a gate used that was taken for ended, and is back, is counted once after the connection to Valkey broke",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const [asleep, other] = await startPair(t, valkey.url, thirtyADay);
		t.equal(await served(asleep, 8), 8);
		const { gates } = await budgetIn(valkey);
		await valkey.command("ZREM", "{llamagate}:gates", ...gates);
		t.equal(await served(other, 1), 1);
		await Promise.all([sharesWith(asleep, 2), sharesWith(other, 2)]);
		await flap(valkey, other);
		t.equal(await served(other, 30), 30 - 8 - 1);
	},
);

t.test(
	"a Valkey that goes on from what it had earlier is told what is missing, and no more",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const before = await startSharing(t, valkey.url, 1);
		t.equal(await served(before, 8), 8);
		const {
			key,
			gates: [ended = ""],
		} = await budgetIn(valkey);
		await before.daemon.stop();
		const after = await startSharing(t, valkey.url, 1);
		t.equal(await served(after, 1), 1);
		const { gates } = await budgetIn(valkey);
		const own = gates.find((gate) => gate !== ended) ?? "";

		const sums = async () => [
			await valkey.command("HGET", key, "ended"),
			await valkey.command("HGET", key, ended),
		];
		await valkey.command("HDEL", key, own);
		await flap(valkey, after);
		const [none, all] = await sums();
		t.match(none, /^\$-1|0 0 0/, "before the gate began: all is there");
		t.match(all, " 8\r\n");

		await valkey.command("HSET", key, ended, "0 0 5");
		await flap(valkey, after);
		const [missing] = await sums();
		t.match(missing, " 3\r\n", "before the other had ended: three are missing");
		t.equal(await served(after, 30), 30 - 8 - 1);
	},
);

t.test(
	"what an ended gate used is told to an emptied Valkey whole, after others have told theirs",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const proxy = await startProxy(t, valkey.port);
		const [ended, other] = await startPair(t, valkey.url, thirtyADay);
		const one = await startSharing(t, proxy.url, 3);
		t.equal(await served(ended, 4), 4);
		t.equal(await served(other, 3), 3);
		await ended.daemon.stop();
		t.equal(await served(one, 2), 2, "and it alone knows of the four");
		proxy.target = 1;
		proxy.cut();
		await eventually(async () => !(await stateOf(one)).isConnected);
		const told = (gates: number) =>
			eventually(async () => (await budgetIn(valkey)).gates.length === gates);
		await valkey.command("FLUSHALL");
		await told(1);
		proxy.target = valkey.port;
		await told(2);
		t.equal(await served(other, 30), 30 - 4 - 3 - 2);
	},
);

/** Whether a gate takes what was used of its one budget for known. */
async function knows(gate: TestGate): Promise<boolean | undefined> {
	const { budgets } = await askAdmin<{ budgets: { isKnown: boolean }[] }>(
		gate,
		"GET /live",
	);
	return budgets[0]?.isKnown;
}

const ofAMonth = { requests: 100, per: "month" } as const;

for (const withoutLedger of ["refuse", "batch"] as const)
	t.test(
		`after a power cut requests at another gate make nothing known that a ledger is to tell, with ${withoutLedger}`,
		async (t) => {
			if (!requireValkey(t)) return;
			const valkey = await startValkey(t);
			const place = await ledgerPlace(t);
			const gates = await startPair(
				t,
				valkey.url,
				withBudget(ofAMonth, {
					budgets: { withoutLedger },
					ledger: place.section,
				}),
			);
			const [one, other] = gates;
			const statuses = await Promise.all(
				Array.from({ length: 20 }, (_, at) => post(at % 2 ? one : other)),
			);
			const status = withoutLedger === "refuse" ? 503 : 200;
			t.strictSame(new Set(statuses), new Set([status]));
			for (const gate of gates) {
				t.equal(await post(gate), status);
				t.equal(await knows(gate), false);
			}
			await spawnLedger(t, place);
			for (const gate of gates) {
				await eventually(async () => (await knows(gate)) === true);
				t.equal(await post(gate), 200);
			}
		},
	);

t.test(
	"without a ledger a budget is known if Valkey has been there since its month began",
	async (t) => {
		if (!requireValkey(t)) return;
		const valkey = await startValkey(t);
		const options = withBudget(ofAMonth);
		const emptied = await startPair(t, valkey.url, options);
		for (const gate of [...emptied, ...emptied])
			t.equal(await post(gate), 200, "as batch");
		for (const gate of emptied) t.equal(await knows(gate), false);
		const prefix = "older";
		// What a gate wrote there years ago.
		await valkey.command("SET", `{${prefix}}:epoch`, "1700000000000.word");
		const whole = await startPair(t, valkey.url, {
			...options,
			config: {
				budgets: { withoutLedger: "refuse" },
				state: { prefix },
			},
		});
		for (const gate of whole) {
			t.equal(await knows(gate), false, "before it has asked");
			await eventually(async () => (await post(gate)) === 200);
			t.equal(await knows(gate), true);
		}
		const { section } = await ledgerPlace(t);
		const waiting = await startGate(t, {
			...options,
			config: {
				budgets: { withoutLedger: "refuse" },
				ledger: section,
				state: { prefix, url: valkey.url },
			},
		});
		await sharesWith(waiting, 3);
		t.equal(
			await post(waiting),
			503,
			"where a ledger is to tell, it is waited for",
		);
	},
);

import { once } from "node:events";
import { createServer } from "node:net";
import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import { BadFileError } from "../../src/errors.ts";
import { type KeyEntry, parseKeys } from "../../src/keys/keyFile.ts";
import { onLines } from "../../src/ledger/protocol.ts";
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
	killLedger,
	ledgerPlace,
	requestsIn,
	spawnLedger,
} from "../support/ledger.ts";
import { postgres, startPostgres } from "../support/postgres.ts";

const [user] = testEntries as [KeyEntry];

function withBudget(budget: NonNullable<KeyEntry["budget"]>): KeyEntry[] {
	return [{ ...user, budget }];
}

async function post(
	{ url }: Pick<TestGate, "url">,
	path = "/api/generate",
): Promise<Response> {
	const reply = await fetch(`${url}${path}`, {
		method: "POST",
		headers: { ...bearer(testKeys.user), "content-type": "application/json" },
		body: JSON.stringify({
			model: "qwen3:8b",
			prompt: "a",
			input: "a",
			messages: [{ role: "user", content: "a" }],
			max_tokens: 5,
		}),
	});
	const text = await reply.text();
	return new Response(text, { status: reply.status, headers: reply.headers });
}

const families: [string, object][] = [
	["/api/chat", { error: /used up its budget/, code: "budget_exceeded" }],
	[
		"/v1/chat/completions",
		{ error: { message: /used up its budget/, code: "budget_exceeded" } },
	],
	[
		"/v1/messages",
		{
			type: "error",
			error: { type: "rate_limit_error", code: "budget_exceeded" },
		},
	],
];

t.test(
	"a budget that is used up is refused in every family's shape, with its end",
	async (t) => {
		const gate = await startGate(t, {
			keys: withBudget({ requests: 2, per: "day" }),
		});
		t.equal((await post(gate)).status, 200);
		t.equal((await post(gate)).status, 200);
		for (const [path, shape] of families) {
			const reply = await post(gate, path);
			t.equal(reply.status, 429);
			t.match(await reply.json(), shape, path);
			const seconds = Number(reply.headers.get("retry-after"));
			t.ok(seconds >= 1 && seconds <= 86_400);
			t.equal(reply.headers.get("x-should-retry"), "false");
		}
		const tags = await fetch(`${gate.url}/api/tags`, {
			headers: bearer(testKeys.user),
		});
		t.equal(tags.status, 200, "reading costs nothing");
		t.match(
			gate.log.filter(({ event }) => event === "budget_exhausted"),
			[{ key: "user", limits: { requests: 2 } }],
			"the log says so once",
		);
		await gate.logged(({ reason }) => reason === "budget_exceeded");
	},
);

t.test("from four fifths on, replies say what is left", async (t) => {
	const gate = await startGate(t, {
		keys: withBudget({ requests: 5, gpu: "10h", per: "week" }),
	});
	const left = async () =>
		(await post(gate)).headers.get("x-llamagate-budget-remaining");
	for (let n = 0; n < 3; n += 1) t.equal(await left(), null);
	t.match(await left(), /^gpu=3\d{4}s, requests=1$/, "beside the fourth");
	t.match(await left(), /^gpu=3\d{4}s, requests=0$/, "beside the last");
	t.match(await left(), /^gpu=3\d{4}s, requests=0$/, "beside a refusal");
	t.equal(gate.log.filter(({ event }) => event === "budget_low").length, 1);
});

t.test(
	"the owner is told at the end of the request that uses four fifths, or all",
	async (t) => {
		const first = await startGate(t, {
			keys: withBudget({ tokens: 1_000_000, per: "day" }),
		});
		const reply = (await (await post(first)).text()).trim().split("\n");
		const last = JSON.parse(reply.at(-1) ?? "");
		const each = last.prompt_eval_count + last.eval_count;
		// One request of the key's is six sevenths or so.
		const tokens = Math.ceil((each * 7) / 6);
		const gate = await startGate(t, {
			config: { budgets: { groups: { all: { tokens, per: "day" } } } },
			keys: [{ ...user, group: "all", budget: { tokens, per: "day" } }],
		});
		const told = () =>
			gate.log
				.filter(({ event }) => /^budget_(low|exhausted)$/.test(`${event}`))
				.map(({ event, key, group }) => [event, key, group]);
		t.equal((await post(gate)).status, 200);
		t.match(await gate.logged(({ event }) => event === "budget_low"), {
			key: "user",
			used: { tokens: each, requests: 1 },
			limits: { tokens },
		});
		t.equal((await post(gate)).status, 200);
		await gate.logged(({ event }) => event === "budget_exhausted");
		t.equal((await post(gate)).status, 429);
		t.strictSame(
			told(),
			["budget_low", "budget_exhausted"].flatMap((event) => [
				[event, "user", undefined],
				[event, "user", "all"],
			]),
			"once each",
		);
	},
);

t.test("tokens and the GPU's time are charged as they were", async (t) => {
	const gate = await startGate(t, {
		keys: withBudget({ tokens: 30, per: "month" }),
	});
	const first = await post(gate);
	const last = JSON.parse((await first.text()).trim().split("\n").at(-1) ?? "");
	const each = last.prompt_eval_count + last.eval_count;
	let served = 1;
	while ((await post(gate)).status === 200) served += 1;
	t.equal(served, Math.ceil(30 / each));
	const other = await startGate(t, {
		keys: withBudget({ gpu: "40ms", per: "day" }),
		standIn: { firstTokenMs: 30 },
	});
	const statuses = [];
	for (let n = 0; n < 4; n += 1) statuses.push((await post(other)).status);
	t.strictSame(statuses.slice(2), [429, 429]);
	t.equal(statuses[0], 200);
});

t.test(
	"one that goes on as batch is served, and waits with those",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const gate = await startGate(t, {
			config: { ledger: place.section, queue: { mode: "fair", parallel: 1 } },
			// biome-ignore lint/suspicious/noThenProperty: the word of the keys file
			keys: withBudget({ requests: 1, per: "day", then: "batch" }),
			standIn: { parallel: 1, firstTokenMs: 200 },
		});
		const waiting = async () => {
			const socket = `${gate.folder}/admin.sock`;
			const { body } = await askDaemon(socket, "GET /metrics");
			return /queue_waiting\{class="(\w+)"\} 1\n/.exec(body)?.[1];
		};
		const replies = [post(gate), post(gate)];
		await eventually(async () => (await waiting()) === "batch");
		for (const reply of replies) t.equal((await reply).status, 200);
		t.equal((await post(gate)).status, 200);
		t.match(
			gate.log.filter(({ event }) => event === "budget_exhausted"),
			[{ key: "user" }],
		);
	},
);

t.test("a gate that starts anew goes on where the last one was", async (t) => {
	const place = await ledgerPlace(t);
	const ledger = await spawnLedger(t, place);
	const options: GateOptions = {
		config: { ledger: place.section },
		keys: withBudget({ requests: 3, per: "month" }),
	};
	const first = await startGate(t, options);
	for (const status of [200, 200, 200, 429])
		t.equal((await post(first)).status, status);
	await eventually(async () => (await requestsIn(place)) === 4);
	const second = await startGate(t, options);
	t.equal((await post(second)).status, 429, "it knows from the start");
	t.notOk(second.log.some(({ event }) => event === "budgets_unknown"));

	await killLedger(ledger);
	const blind = await startGate(t, options);
	t.equal((await post(blind)).status, 200, "as batch, while nobody tells");
	await blind.logged(({ event }) => event === "budgets_unknown");
	await spawnLedger(t, place);
	await eventually(async () => (await post(blind)).status === 429);
});

t.test(
	"out of a database that gates share, each takes up its own use",
	postgres(),
	async (t) => {
		const server = await startPostgres(t);
		const { url } = await server.createDatabase();
		const { passwordFile } = server;
		const open = async (gate: string) => {
			const place = await ledgerPlace(t, { url, passwordFile, gate });
			await spawnLedger(t, place);
			const options: GateOptions = {
				config: { ledger: place.section },
				keys: withBudget({ requests: 3, per: "month" }),
			};
			return { place, options };
		};
		const [north, south] = [await open("north"), await open("south")];
		const first = await startGate(t, north.options);
		for (const status of [200, 200, 200, 429])
			t.equal((await post(first)).status, status);
		await eventually(async () => (await requestsIn(south.place)) === 4);
		const again = await startGate(t, north.options);
		t.equal((await post(again)).status, 429, "it knows from the start");
		const other = await startGate(t, south.options);
		for (const status of [200, 200, 200, 429])
			t.equal((await post(other)).status, status);
		t.notOk(other.log.some(({ event }) => event === "budgets_unknown"));
	},
);

t.test("a gate that is told to refuses while no ledger tells", async (t) => {
	const gate = await startGate(t, {
		config: { budgets: { withoutLedger: "refuse" } },
		keys: withBudget({ requests: 3, per: "month" }),
	});
	const reply = await post(gate);
	t.equal(reply.status, 503);
	t.match(await reply.text(), /no ledger tells/);
});

const isQuery = (line: string) => "query" in JSON.parse(line);

/** What a ledger says that writes nothing down, and knows these sums. */
function answerTo(line: string, rows: unknown): string {
	const { query, batch } = JSON.parse(line);
	const answer =
		query !== undefined
			? { rows }
			: batch !== undefined
				? { done: batch }
				: { last: 0 };
	return `${JSON.stringify(answer)}\n`;
}

for (const rows of [[{ key: "user" }], [null], null, {}])
	t.test(
		`what is no sum tells nothing of a budget: ${JSON.stringify(rows)}`,
		async (t) => {
			const place = await ledgerPlace(t);
			let questions = 0;
			const ledger = createServer((socket) => {
				socket.on("error", () => {});
				onLines(socket, 1_000_000, (line) => {
					if (isQuery(line)) questions += 1;
					socket.write(answerTo(line, rows));
				});
			});
			await once(ledger.listen(place.socket), "listening");
			t.teardown(() => ledger.close());
			const gate = await startGate(t, {
				config: {
					budgets: { withoutLedger: "refuse" },
					ledger: place.section,
				},
				keys: withBudget({ requests: 3, per: "month" }),
			});
			const reply = await post(gate);
			t.equal(reply.status, 503);
			t.match(await reply.text(), /no ledger tells/);
			await eventually(() => questions > 1);
		},
	);

t.test("a budget that a reload brings is restored too", async (t) => {
	const place = await ledgerPlace(t);
	await spawnLedger(t, place);
	const gate = await startGate(t, {
		config: { ledger: place.section },
		keys: [user],
	});
	for (let n = 0; n < 3; n += 1) t.equal((await post(gate)).status, 200);
	await gate.writeKeys(withBudget({ requests: 1, per: "day" }));
	await gate.daemon.reload();
	await eventually(async () => (await post(gate)).status === 429);
});

/** What requests are answered with until the budget is used up, once the ledger has told of it. */
async function statusesOf(gate: TestGate): Promise<number[]> {
	const statuses: number[] = [];
	await eventually(async () => {
		const { status } = await post(gate);
		if (status !== 503) statuses.push(status);
		return status === 429;
	});
	return statuses;
}

const before = { requests: 4, per: "day" } as const;
const edits: [string, KeyEntry["budget"], NonNullable<KeyEntry["budget"]>][] = [
	["another period", before, { requests: 4, per: "month" }],
	["another time zone", before, { ...before, timezone: "Pacific/Apia" }],
	["its first budget", undefined, { requests: 4, per: "month" }],
];
for (const [what, had, has] of edits)
	t.test(
		`a key that an edit gives ${what} has used what it had, and what ran meanwhile`,
		async (t) => {
			const place = await ledgerPlace(t);
			await spawnLedger(t, place);
			const gate = await startGate(t, {
				config: {
					ledger: place.section,
					budgets: { withoutLedger: "refuse" },
				},
				keys: had === undefined ? [user] : withBudget(had),
				standIn: { firstTokenMs: 300 },
			});
			for (let n = 0; n < 2; n += 1) t.equal((await post(gate)).status, 200);
			const across = post(gate);
			await eventually(() => gate.standIn.calls.length === 3);
			await gate.writeKeys(withBudget(has));
			await gate.daemon.reload();
			t.equal((await across).status, 200);
			t.strictSame(await statusesOf(gate), [200, 429]);
		},
	);

t.test(
	"what a key uses while its budget is taken away counts once it comes back",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const gate = await startGate(t, {
			config: { ledger: place.section, budgets: { withoutLedger: "refuse" } },
			keys: withBudget(before),
		});
		for (let n = 0; n < 2; n += 1) t.equal((await post(gate)).status, 200);
		await gate.writeKeys([user]);
		await gate.daemon.reload();
		t.equal((await post(gate)).status, 200);
		await gate.writeKeys(withBudget(before));
		await gate.daemon.reload();
		t.strictSame(await statusesOf(gate), [200, 429]);
	},
);

t.test(
	"a budget that a reload brings while the ledger is asked is asked for too",
	async (t) => {
		const place = await ledgerPlace(t);
		const held: (() => void)[] = [];
		let isHeld = true;
		const ledger = createServer((socket) => {
			socket.on("error", () => {});
			onLines(socket, 1_000_000, (line) => {
				const answer = () => socket.write(answerTo(line, []));
				if (isQuery(line) && isHeld) held.push(answer);
				else answer();
			});
		});
		await once(ledger.listen(place.socket), "listening");
		t.teardown(() => ledger.close());
		const gate = await startGate(t, {
			config: { budgets: { withoutLedger: "refuse" }, ledger: place.section },
			keys: [user, { name: "lab", sha256: "0".repeat(64), budget: before }],
		});
		await eventually(() => held.length === 1);
		await gate.writeKeys(withBudget(before));
		await gate.daemon.reload();
		t.equal((await post(gate)).status, 503);
		isHeld = false;
		held[0]?.();
		await eventually(async () => (await post(gate)).status === 200);
	},
);

t.test(
	"a ledger that forgets within a budget's time of another zone than UTC is refused",
	async (t) => {
		const zoned = { requests: 3, timezone: "Europe/Berlin" };
		const gate = await startGate(t, { keys: [user] });
		const reload = async (
			retention: string,
			budget: NonNullable<KeyEntry["budget"]>,
		) => {
			await gate.writeConfig({ ledger: { retention } });
			await gate.writeKeys(withBudget(budget));
			return gate.daemon.reload();
		};
		for (const [per, short, enough] of [
			["day", "1d", "2d"],
			["week", "7d", "8d"],
			["month", "31d", "32d"],
		] as const) {
			t.match(await reload(short, { ...zoned, per }), {
				ok: false,
				mistakes: [
					{
						path: "ledger.retention",
						message: new RegExp(
							`${per} in Europe/Berlin .*"user".*"${enough}"`,
						),
					},
				],
			});
			t.match(await reload(enough, { ...zoned, per }), { ok: true });
			t.match(await reload(short, { requests: 3, per }), { ok: true });
		}
	},
);

t.test("a budget that cannot be meant is refused with its line", async (t) => {
	const mistakesOf = (budget: string) => {
		try {
			parseKeys(
				`{"keys":[{"name":"a","sha256":"${"0".repeat(64)}",\n"budget":{\n${budget}}}]}`,
				"keys.json",
			);
			return [];
		} catch (error) {
			if (!(error instanceof BadFileError)) throw error;
			return error.mistakes.map(({ path, line }) => `${path} ${line}`);
		}
	};
	const at = "keys[0].budget";
	t.strictSame(mistakesOf('"gpu":"2h","per":"day"'), []);
	t.strictSame(mistakesOf('"gpu":"2h","per":"fortnight"'), [`${at}.per 3`]);
	t.strictSame(mistakesOf('"gpu":"2h","per":"day",\n"timezone":"Mars/North"'), [
		`${at}.timezone 4`,
	]);
	t.strictSame(mistakesOf('"per":"day"'), [`${at} 2`]);
	t.strictSame(mistakesOf('"tokens":0,"per":"day"'), [`${at}.tokens 3`]);
	t.strictSame(mistakesOf('"tokens":1,"per":"day","then":"beg"'), [
		`${at}.then 3`,
	]);
	t.equal(mistakesOf('"tokens":1').length, 1);
});

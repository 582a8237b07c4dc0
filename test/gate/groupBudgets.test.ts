import t from "tap";
import { askDaemon } from "../../src/admin/client.ts";
import type { KeyEntry } from "../../src/keys/keyFile.ts";
import {
	bearer,
	eventually,
	runCli,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "../support/gate.ts";
import { ledgerPlace, requestsIn, spawnLedger } from "../support/ledger.ts";

const [user, owner, , worker] = testEntries as [
	...[KeyEntry, KeyEntry, KeyEntry, KeyEntry],
];
const inFamily = (key: KeyEntry): KeyEntry => ({ ...key, group: "family" });

const groups = (budget: object) => ({
	budgets: { groups: { family: { per: "month", ...budget } } },
});

async function post({ url }: TestGate, key: string): Promise<Response> {
	const reply = await fetch(`${url}/api/generate`, {
		method: "POST",
		headers: bearer(key),
		body: JSON.stringify({ model: "qwen3:8b", prompt: "a" }),
	});
	const text = await reply.text();
	return new Response(text, { status: reply.status, headers: reply.headers });
}

async function statuses(gate: TestGate, ...keys: string[]): Promise<number[]> {
	const seen = [];
	for (const key of keys) seen.push((await post(gate, key)).status);
	return seen;
}

t.test(
	"keys of a group use up one budget, and the reply names it",
	async (t) => {
		const gate = await startGate(t, {
			config: groups({ requests: 3 }),
			keys: [inFamily(user), inFamily(owner), worker],
		});
		t.strictSame(
			await statuses(gate, testKeys.user, testKeys.owner, testKeys.user),
			[200, 200, 200],
		);
		for (const key of [testKeys.user, testKeys.owner]) {
			const reply = await post(gate, key);
			t.equal(reply.status, 429);
			t.match(await reply.json(), {
				error:
					/^the group "family" has used up its budget: 3 of 3 requests a month; it begins anew at /,
				code: "budget_exceeded",
			});
		}
		t.strictSame(
			await statuses(gate, testKeys.worker),
			[200],
			"who is in none",
		);
		t.match(
			gate.log.filter(({ event }) => event === "budget_exhausted"),
			[{ group: "family", msg: "the budget of a group is used up" }],
			"the log says so once",
		);
		const { body } = await askDaemon(
			`${gate.folder}/admin.sock`,
			"GET /metrics",
		);
		t.match(body, /^llamagate_budget_used_ratio\{group="family"\} 1$/m);
		const { stdout } = await runCli(["status", "--config", gate.configFile]);
		t.match(
			stdout,
			/^ {6}budget: group:family has used 3 of 3 requests a month; it begins anew at /m,
		);
	},
);

t.test(
	"however many come at once with its keys, not one too many is let in",
	async (t) => {
		const gate = await startGate(t, {
			config: groups({ requests: 5 }),
			keys: [inFamily(user), inFamily(owner)],
			standIn: { firstTokenMs: 20 },
		});
		const replies = await Promise.all(
			Array.from({ length: 40 }, (_, n) =>
				post(gate, n % 2 ? testKeys.user : testKeys.owner),
			),
		);
		t.equal(replies.filter(({ status }) => status === 200).length, 5);
	},
);

t.test(
	"tokens are passed by one request's worth each of what runs",
	async (t) => {
		const gate = await startGate(t, {
			config: groups({ tokens: 100 }),
			keys: [inFamily(user), inFamily(owner)],
			standIn: { firstTokenMs: 5 },
		});
		const first = await (await post(gate, testKeys.user)).text();
		const last = JSON.parse(first.trim().split("\n").at(-1) ?? "");
		const each = last.prompt_eval_count + last.eval_count;
		let served = 1;
		for (;;) {
			const replies = await Promise.all([
				post(gate, testKeys.user),
				post(gate, testKeys.owner),
			]);
			const good = replies.filter(({ status }) => status === 200).length;
			served += good;
			if (good === 0) break;
		}
		t.ok(served * each >= 100, `${served} of ${each}`);
		t.ok(served * each < 100 + 2 * each, `${served} of ${each}`);
	},
);

t.test(
	"a key's own budget holds beside its group's, and the least that is left is told",
	async (t) => {
		const gate = await startGate(t, {
			config: groups({ requests: 5, gpu: "10h" }),
			keys: [
				{
					...inFamily(user),
					budget: { requests: 2, tokens: 1_000_000, per: "day" },
				},
				inFamily(owner),
			],
		});
		const [one, two] = [
			await post(gate, testKeys.user),
			await post(gate, testKeys.user),
		];
		t.strictSame([one.status, two.status], [200, 200]);
		const own = await post(gate, testKeys.user);
		t.equal(own.status, 429);
		t.match(await own.text(), /the key \\"user\\" has used up its budget/);
		t.match(
			own.headers.get("x-llamagate-budget-remaining"),
			/^gpu=3\d{4}s, tokens=9\d{5}, requests=0$/,
		);
		t.strictSame(
			await statuses(gate, testKeys.owner),
			[200],
			"a refused one costs the group nothing",
		);
		t.match(
			(await post(gate, testKeys.owner)).headers.get(
				"x-llamagate-budget-remaining",
			),
			/^gpu=3\d{4}s, requests=1$/,
		);
	},
);

t.test(
	"a gate that starts anew adds up what the keys have used that are in the group then",
	async (t) => {
		const place = await ledgerPlace(t);
		await spawnLedger(t, place);
		const config = { ledger: place.section, ...groups({ requests: 4 }) };
		const keys = [inFamily(user), inFamily(owner)];
		const first = await startGate(t, { config, keys });
		await statuses(first, testKeys.user, testKeys.user, testKeys.user);
		await statuses(first, testKeys.owner);
		t.strictSame(await statuses(first, testKeys.owner), [429]);
		await eventually(async () => (await requestsIn(place)) === 5);
		const second = await startGate(t, { config, keys });
		t.strictSame(await statuses(second, testKeys.owner), [429]);
		// What the one has used goes with it.
		const third = await startGate(t, { config, keys: [user, inFamily(owner)] });
		t.strictSame(
			await statuses(third, testKeys.owner, testKeys.owner, testKeys.owner),
			[200, 200, 200],
		);
		t.strictSame(await statuses(third, testKeys.owner), [429]);
		t.strictSame(await statuses(third, testKeys.user), [200]);
	},
);

t.test(
	"a group that there is not is refused with its line, and what was in force stays",
	async (t) => {
		const gate = await startGate(t, {
			config: groups({ requests: 1 }),
			keys: [inFamily(user)],
		});
		await gate.writeKeys([inFamily(user), { ...owner, group: "famly" }]);
		t.match(await gate.daemon.reload(), {
			ok: false,
			mistakes: [
				{
					path: "keys[1].group",
					message: /^is not a group of budgets\.groups .*; known: family$/,
					line: 1,
				},
			],
		});
		await gate.writeKeys([inFamily(user)]);
		await gate.writeConfig({ budgets: { groups: { family: { per: "day" } } } });
		t.match(await gate.daemon.reload(), {
			ok: false,
			mistakes: [{ path: "budgets.groups.family", message: /limits nothing/ }],
		});
		await gate.writeConfig({});
		t.match(await gate.daemon.reload(), {
			ok: false,
			mistakes: [{ path: "keys[0].group", message: /which has none$/ }],
		});
		t.strictSame(
			await statuses(gate, testKeys.user, testKeys.user),
			[200, 429],
		);
		await gate.writeConfig(groups({ requests: 2 }));
		t.match(await gate.daemon.reload(), { ok: true });
		t.strictSame(
			await statuses(gate, testKeys.user, testKeys.user),
			[200, 429],
		);
	},
);

t.test("a key is put into a group, listed, and taken out", async (t) => {
	const gate = await startGate(t, {
		config: groups({ requests: 1 }),
		keys: [user],
	});
	const keys = (...args: string[]) =>
		runCli(["keys", ...args, "--config", gate.configFile]);
	t.match(await keys("add", "phone", "--group", "famly"), {
		code: 1,
		stderr: /found no group "famly" in budgets\.groups of .*; known: family/,
	});
	t.match(await keys("edit", "user", "--group", "family"), {
		code: 0,
		stderr: /group family/,
	});
	t.strictSame(await statuses(gate, testKeys.user, testKeys.user), [200, 429]);
	const { stdout } = await keys("list", "--json");
	t.match(JSON.parse(stdout), { keys: [{ name: "user", group: "family" }] });
	t.equal((await keys("edit", "user", "--group", "none")).code, 0);
	t.strictSame(await statuses(gate, testKeys.user), [200]);
});

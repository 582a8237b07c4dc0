import path from "node:path";
import fc from "fast-check";
import t from "tap";
import { openStore } from "../../src/ledger/openStore.ts";
import {
	amountNames,
	outcomes,
	type UsageRecord,
} from "../../src/ledger/record.ts";
import { dayMs, hourMs, type Store } from "../../src/ledger/store.ts";
import { recordOf } from "../support/ledger.ts";
import { temporaryFolder } from "../support/temporaryFolder.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

async function openIn(t: Teardown, retentionMs = 90 * dayMs): Promise<Store> {
	const folder = await temporaryFolder(t);
	const { store } = openStore(path.join(folder, "ledger.sqlite"), retentionMs);
	t.teardown(() => store.close());
	return store;
}

const nowMs = Date.UTC(2030, 5, 15, 10, 20);

t.test("sums are those of the records, from any time on", async (t) => {
	const record = fc.record({
		time: fc.integer({ min: nowMs - 5 * dayMs, max: nowMs }),
		user: fc.constantFrom("key:a", "login:b"),
		key: fc.constantFrom("a", "b"),
		node: fc.constantFrom(null, "phone"),
		model: fc.constantFrom(null, "m:1b", "other:2b"),
		outcome: fc.constantFrom(...outcomes),
		requests: fc.integer({ min: 1, max: 3 }),
		tokensIn: fc.nat({ max: 5_000 }),
		gpuMs: fc.nat({ max: 90_000 }),
	});
	const store = await openIn(t);
	let batch = 0;
	const all: UsageRecord[] = [];
	fc.assert(
		fc.property(
			fc.array(record, { maxLength: 40 }),
			fc.integer({ min: nowMs - 6 * dayMs, max: nowMs }),
			fc.option(fc.integer({ min: nowMs - 5 * dayMs, max: nowMs }), {
				nil: undefined,
			}),
			fc.option(fc.nat({ max: 2 * hourMs }), { nil: undefined }),
			(some, sinceMs, until, shortMs) => {
				// Some in the same hour.
				const untilMs = shortMs === undefined ? until : sinceMs + shortMs;
				const records = some.map((one) => recordOf(one));
				store.append("gate", ++batch, records);
				all.push(...records);
				const rows = store.usage(
					{
						sinceMs,
						...(untilMs !== undefined && { untilMs }),
						by: ["user", "model"],
					},
					nowMs,
				);
				const wanted = new Map<string, Record<string, number>>();
				for (const one of all) {
					if (one.time < sinceMs || one.time >= (untilMs ?? nowMs + 1))
						continue;
					const id = `${one.user} ${one.model}`;
					const sum = wanted.get(id) ?? { refused: 0 };
					for (const name of amountNames)
						sum[name] = (sum[name] ?? 0) + one[name];
					if (one.outcome === "refused")
						sum.refused = (sum.refused ?? 0) + one.requests;
					wanted.set(id, sum);
				}
				const found = rows.map(
					({ user, model, key: _k, day: _d, node: _n, ...sum }) =>
						[`${user} ${model}`, sum] as const,
				);
				t.strictSame(Object.fromEntries(found), Object.fromEntries(wanted));
			},
		),
		{ numRuns: 200 },
	);
});

t.test("a batch that comes again is not counted again", async (t) => {
	const store = await openIn(t);
	store.append("gate", 1, [recordOf()]);
	store.append("gate", 2, [recordOf()]);
	store.append("gate", 1, [recordOf()]);
	store.append("gate", 2, [recordOf()]);
	store.append("other", 1, [recordOf()]);
	t.equal(store.lastBatch("gate"), 2);
	t.match(store.usage({ sinceMs: 0, by: [] }), [{ requests: 3 }]);
});

t.test("records go after the retention, sums of days stay", async (t) => {
	const store = await openIn(t, 3 * dayMs);
	const days = [1, 2, 3, 10, 400];
	store.append(
		"gate",
		1,
		days.map((ago) => recordOf({ time: nowMs - ago * dayMs, gpuMs: ago })),
	);
	const sums = () => store.usage({ sinceMs: 0, by: ["day"] }, nowMs);
	const before = sums();
	t.equal(before.length, 5);
	let turns = 1;
	while (store.forgetSome(1, nowMs)) turns += 1;
	t.ok(turns > 2, "in parts");
	t.strictSame(sums(), before);
	t.strictSame(
		store
			.usage({ sinceMs: nowMs - 2 * dayMs - hourMs, by: ["day"] }, nowMs)
			.map(({ gpuMs }) => gpuMs)
			.sort(),
		[1, 2],
	);
});

t.test("the sums of one key are that key's", async (t) => {
	const store = await openIn(t);
	store.append("gate", 1, [
		recordOf({ key: "a", gpuMs: 1 }),
		recordOf({ key: "b", gpuMs: 2 }),
		recordOf({ key: "b", gpuMs: 3, outcome: "refused" }),
	]);
	t.match(store.usage({ sinceMs: 0, by: [], key: "b" }), [
		{ requests: 2, refused: 1, gpuMs: 5 },
	]);
	t.strictSame(store.usage({ sinceMs: 0, by: [], key: "nobody" }), []);
	t.strictSame(store.usage({ sinceMs: 5, untilMs: 5, by: [] }), []);
});

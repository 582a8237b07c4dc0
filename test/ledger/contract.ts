import fc from "fast-check";
import type { Test } from "tap";
import {
	amountNames,
	outcomes,
	type UsageRecord,
} from "../../src/ledger/record.ts";
import { dayMs, hourMs, type Store } from "../../src/ledger/store.ts";
import { recordOf } from "../support/ledger.ts";

/** A store with nothing in it. */
export interface OpenedForTest {
	readonly store: Store;
	/** The same records, read by another that was opened anew. */
	again(): Promise<Store>;
}

/** @param gate its name, "here" if it is not given */
export type OpenStore = (
	t: Test,
	retentionMs?: number,
) => Promise<OpenedForTest>;

const nowMs = Date.UTC(2030, 5, 15, 10, 20);

/** What must hold of whatever keeps records. */
export async function runStoreContract(
	t: Test,
	open: OpenStore,
	runs: number,
): Promise<void> {
	await t.test("sums are those of the records, from any time on", async (t) => {
		const { store } = await open(t);
		let batch = 0;
		const all: UsageRecord[] = [];
		await fc.assert(
			fc.asyncProperty(
				fc.array(anyRecord, { maxLength: 40 }),
				fc.integer({ min: nowMs - 6 * dayMs, max: nowMs }),
				fc.option(fc.integer({ min: nowMs - 5 * dayMs, max: nowMs }), {
					nil: undefined,
				}),
				fc.option(fc.nat({ max: 2 * hourMs }), { nil: undefined }),
				async (some, sinceMs, until, shortMs) => {
					// Some in the same hour.
					const untilMs = shortMs === undefined ? until : sinceMs + shortMs;
					const records = some.map((one) => recordOf(one));
					await store.append("gate", ++batch, records);
					all.push(...records);
					const rows = await store.usage(
						{
							sinceMs,
							...(untilMs !== undefined && { untilMs }),
							by: ["user", "model"],
						},
						nowMs,
					);
					const found = rows.map(
						({ user, model, key: _k, day: _d, node: _n, gate: _g, ...sum }) =>
							[`${user} ${model}`, sum] as const,
					);
					t.strictSame(
						Object.fromEntries(found),
						sumsOf(all, sinceMs, untilMs ?? nowMs + 1),
					);
				},
			),
			{ numRuns: runs },
		);
	});

	await t.test("a batch that comes again is not counted again", async (t) => {
		const { store, again } = await open(t);
		await store.append("gate", 1, [recordOf()]);
		await store.append("gate", 2, [recordOf()]);
		await store.append("gate", 1, [recordOf()]);
		await store.append("gate", 2, [recordOf()]);
		await store.append("other", 1, [recordOf()]);
		t.equal(await store.lastBatch("gate"), 2);
		t.equal(await store.lastBatch("nobody"), 0);
		t.match(await store.usage({ sinceMs: 0, by: [] }), [{ requests: 3 }]);
		await store.close();
		const anew = await again();
		t.equal(await anew.lastBatch("gate"), 2);
		await anew.append("gate", 2, [recordOf()]);
		t.match(await anew.usage({ sinceMs: 0, by: [] }), [{ requests: 3 }]);
	});

	await t.test(
		"records go after the retention, sums of days stay",
		async (t) => {
			const { store } = await open(t, 3 * dayMs);
			const days = [1, 2, 3, 10, 400];
			await store.append(
				"gate",
				1,
				days.map((ago) => recordOf({ time: nowMs - ago * dayMs, gpuMs: ago })),
			);
			const sums = () => store.usage({ sinceMs: 0, by: ["day"] }, nowMs);
			const before = await sums();
			t.equal(before.length, 5);
			let turns = 1;
			while (await store.forgetSome(1, nowMs)) turns += 1;
			t.ok(turns > 2, "in parts");
			t.strictSame(await sums(), before);
			const late = await store.usage(
				{ sinceMs: nowMs - 2 * dayMs - hourMs, by: ["day"] },
				nowMs,
			);
			t.strictSame(late.map(({ gpuMs }) => gpuMs).sort(), [1, 2]);
		},
	);

	await t.test("the sums of one key are that key's", async (t) => {
		const { store } = await open(t);
		await store.append("gate", 1, [
			recordOf({ key: "a", gpuMs: 1 }),
			recordOf({ key: "b", gpuMs: 2 }),
			recordOf({ key: "b", gpuMs: 3, outcome: "refused" }),
		]);
		t.match(await store.usage({ sinceMs: 0, by: [], key: "b" }), [
			{ requests: 2, refused: 1, gpuMs: 5 },
		]);
		t.strictSame(await store.usage({ sinceMs: 0, by: [], key: "nobody" }), []);
		t.strictSame(await store.usage({ sinceMs: 5, untilMs: 5, by: [] }), []);
	});

	await t.test("names of any script and length are kept apart", async (t) => {
		const { store } = await open(t);
		const long = (last: string) => `${"\u{1f511}".repeat(200)}${last}`;
		const names = [long("a"), long("b"), "é", "e\u0301", "a'b\"c\\d", "", " "];
		await store.append(
			"gate",
			1,
			names.map((name) =>
				recordOf({ user: `key:${name}`, node: name, model: name }),
			),
		);
		const rows = await store.usage({ sinceMs: 0, by: ["user", "model"] });
		t.strictSame(
			rows.map(({ user }) => user).sort(),
			names.map((name) => `key:${name}`).sort(),
		);
		// No database holds these as they are; the record counts all the same.
		await store.append("gate", 2, [
			recordOf({ model: "a\0b" }),
			recordOf({ model: "\ud800" }),
		]);
		t.match(await store.usage({ sinceMs: 0, by: [] }), [
			{ requests: names.length + 2 },
		]);
	});

	await t.test("usage is told by gate", async (t) => {
		const { store } = await open(t);
		await store.append("gate", 1, [recordOf(), recordOf({ key: "b" })]);
		t.match(await store.usage({ sinceMs: 0, by: ["gate"] }), [
			{ gate: "here", requests: 2 },
		]);
		t.match(await store.usage({ sinceMs: 0, by: ["key", "gate"], own: true }), [
			{ gate: "here", requests: 1 },
			{ gate: "here", requests: 1 },
		]);
	});
}

const anyRecord = fc.record({
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

/** By user and model, reckoned from the records alone. */
function sumsOf(
	records: readonly UsageRecord[],
	sinceMs: number,
	untilMs: number,
) {
	const sums = new Map<string, Record<string, number>>();
	for (const one of records) {
		if (one.time < sinceMs || one.time >= untilMs) continue;
		const id = `${one.user} ${one.model}`;
		const sum = sums.get(id) ?? { refused: 0 };
		for (const name of amountNames) sum[name] = (sum[name] ?? 0) + one[name];
		if (one.outcome === "refused")
			sum.refused = (sum.refused ?? 0) + one.requests;
		sums.set(id, sum);
	}
	return Object.fromEntries(sums);
}

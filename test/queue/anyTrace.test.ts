import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { priorities } from "../../src/priority.ts";
import { play, trace } from "./traces.ts";

t.test(
	"whatever happens, no request is lost or sent twice, no slot stays free, and no model is kept that has to go",
	async (t) => {
		const ends = new Set<string>();
		fc.assert(
			fc.property(trace, (one) => {
				const { turns, trips, started, left } = play(one);
				assert.equal(started + left, trips.length);
				for (const { end } of trips) ends.add(end);
				for (const model of turns.models) assert.ok(model.isIdle);
				for (const priority of priorities)
					assert.ok(turns.accounts(priority).size <= 1, "nobody is remembered");
				assert.equal(turns.next(Number.MAX_SAFE_INTEGER), undefined);
				assert.equal(turns.wantsLoad, false);
			}),
			{ numRuns: 1_500 },
		);
		t.strictSame(ends, new Set(["served", "failed", "left", "abandoned"]));
	},
);

t.test(
	"who passes where nobody waits is served, and charged, as if there had been a line",
	async () => {
		fc.assert(
			fc.property(trace, (one) => {
				const [passing, linedUp] = [play(one), play(one, true)].map(
					({ trips, turns }) => ({
						trips: trips.map(
							({ arrivedMs, startedMs, endedMs, end, place }) => ({
								...{ arrivedMs, startedMs, endedMs, end },
								charge: place.charge && { ...place.charge, account: undefined },
								settledMs: place.charge?.account.settledMs,
							}),
						),
						accounts: priorities.map((priority) =>
							[...turns.accounts(priority)].map(({ counter, lastTurn }) => ({
								...{ counter, lastTurn },
							})),
						),
					}),
				);
				assert.deepEqual(passing, linedUp);
			}),
			{ numRuns: 500 },
		);
	},
);

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
					assert.equal(turns.accounts(priority).size, 0);
				assert.equal(turns.next(Number.MAX_SAFE_INTEGER), undefined);
				assert.equal(turns.wantsLoad, false);
			}),
			{ numRuns: 1_500 },
		);
		t.strictSame(ends, new Set(["served", "failed", "left", "abandoned"]));
	},
);

import t from "tap";
import { startWire } from "../support/wire.ts";
import { fuzzRequests } from "./differential.ts";
import { chooseSeed } from "./random.ts";

t.test(
	"the gate and a reader like Go's end every mutated request in the same place",
	async (t) => {
		// The same in every run; `npm run fuzz` takes another each time.
		const seed = chooseSeed(1);
		t.comment(`seed ${seed}`);
		const wire = await startWire(t);
		const run = await fuzzRequests(wire, seed, (cases) => cases >= 1_200);
		t.strictSame(run.disagreements, [], "they agree");
		t.ok(run.forwarded > 60, `${run.forwarded} of ${run.cases} went through`);
	},
);

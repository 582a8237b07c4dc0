import t from "tap";
import { judgeLedger } from "../../src/host/gate/ledger.ts";

const counts = {
	isConnected: true,
	waiting: 3,
	written: 120,
	aggregated: 0,
	lost: 0,
};

t.test(
	"what is not wanted is not missed, unless a budget needs it",
	async (t) => {
		t.match(judgeLedger(false, [], "no gate"), { state: "absent" });
		t.match(judgeLedger(false, ["lab"], "no gate"), {
			state: "finding",
			evidence: [/the key "lab" has a budget/],
		});
	},
);

t.test("a ledger that takes what the gate sends is well", async (t) => {
	t.match(judgeLedger(true, [], { ledger: counts }), {
		state: "ok",
		evidence: [/^120 requests .*, 3 wait$/],
	});
});

t.test(
	"one that is away, not used, or has lost something is told of",
	async (t) => {
		t.match(judgeLedger(true, [], "only root may ask"), { state: "unknown" });
		t.match(judgeLedger(true, [], {}), {
			state: "finding",
			fix: /restart llamagate/,
		});
		t.match(
			judgeLedger(true, [], { ledger: { ...counts, isConnected: false } }),
			{ state: "finding", evidence: ["no ledger takes records", String] },
		);
		t.match(judgeLedger(true, [], { ledger: { ...counts, lost: 7 } }), {
			state: "finding",
			evidence: [String, /7 requests is lost/],
		});
	},
);

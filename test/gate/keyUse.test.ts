import t from "tap";
import { KeyUses } from "../../src/gate/keyUse.ts";

const hour = 3_600_000;

t.test(
	"the last day's requests are counted by the hour, and older ones forgotten",
	async (t) => {
		const uses = new KeyUses();
		const start = 1_000 * 24 * hour;
		uses.record("a", "laptop", start);
		uses.record("a", "phone", start + hour);
		t.match(uses.report(start + hour), {
			a: {
				lastFrom: "phone",
				lastDay: 2,
				lastUsed: new Date(start + hour).toISOString(),
			},
		});
		t.equal(uses.report(start + 23 * hour).a?.lastDay, 2);
		t.equal(uses.report(start + 24 * hour).a?.lastDay, 1);
		t.equal(uses.report(start + 25 * hour).a?.lastDay, 0);
		uses.record("a", "laptop", start + 100 * 24 * hour);
		t.equal(uses.report(start + 100 * 24 * hour).a?.lastDay, 1);
		uses.record("a", "laptop", start + hour);
		t.equal(
			uses.report(start + 100 * 24 * hour).a?.lastDay,
			2,
			"a clock that was set back loses nothing",
		);
		t.equal(uses.report(start).b, undefined);
	},
);

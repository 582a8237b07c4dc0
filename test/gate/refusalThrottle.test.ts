import t from "tap";
import { RefusalThrottle } from "../../src/gate/refusalThrottle.ts";

t.test(
	"a thousand refusals go at once, then 200 a second, and who would wait for more than six seconds gets none",
	async (t) => {
		const pace = new RefusalThrottle();
		const nowMs = 1_000_000;
		const waits = Array.from({ length: 2_500 }, () => pace.take("a", nowMs));
		t.equal(waits.filter((waitMs) => waitMs === 0).length, 1_000);
		const later = waits.filter(
			(waitMs) => waitMs !== 0 && waitMs !== undefined,
		);
		t.strictSame(
			later,
			Array.from({ length: 1_200 }, (_, turn) => (turn + 1) * 5),
		);
		t.equal(waits.filter((waitMs) => waitMs === undefined).length, 300);
		t.equal(pace.take("b", nowMs), 0, "another has its own share");
	},
);

t.test("who has been quiet has the thousand back", async (t) => {
	const pace = new RefusalThrottle();
	for (let n = 0; n < 2_000; n++) pace.take("a", 0);
	const backAtMs = 5_000 + 5_000;
	pace.sweep(backAtMs);
	for (let n = 0; n < 1_000; n++)
		if (pace.take("a", backAtMs) !== 0) return t.fail(`the ${n}th waits`);
	t.not(pace.take("a", backAtMs), 0);
});

import t from "tap";
import { becomesTrue } from "../../src/system/waiting.ts";

t.test("patience ends also where the clock is put back", async (t) => {
	const { now } = Date;
	t.teardown(() => {
		Date.now = now;
	});
	let looks = 0;
	const look = async () => {
		Date.now = () => now() - 3_600_000;
		looks += 1;
		// Whoever goes on for longer has no end.
		return looks === 10;
	};
	t.equal(await becomesTrue(look, 1), false);
});

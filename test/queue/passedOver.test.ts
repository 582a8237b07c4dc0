import assert from "node:assert/strict";
import t from "tap";
import type { Priority } from "../../src/priority.ts";
import { Turns } from "../../src/queue/turns.ts";
import { asked, defaultSettings, go, Simulation } from "./simulation.ts";

interface User {
	readonly priority: Priority;
	readonly serviceMs: number;
}

/** Users who always have requests that wait, and what of the GPU each has had after so long. */
function crowd(
	users: readonly User[],
	parallel: number,
	forMs: number,
): number[] {
	const simulation = new Simulation({
		machine: { room: 1, parallel, loadMs: 10 },
		settings: { parallel },
		tickMs: 1000,
	});
	for (const [index, { priority, serviceMs }] of users.entries()) {
		const one = () => {
			simulation.submit(
				{
					...{ user: `${index}`, share: 1, priority, model: "m" },
					...{ isStream: true, firstByteMs: 1, serviceMs },
				},
				() => {
					if (simulation.nowMs < forMs) one();
				},
			);
		};
		for (let count = 0; count < 2 * parallel; count += 1) one();
	}
	simulation.run(forMs);
	return users.map((_, index) => simulation.servedMs(`${index}`));
}

const hourMs = 3_600_000;
/** Of class interactive. */
const maxWaitMs = 120_000;

t.test(
	"a request longer than maxWait passes over others, not its own user",
	async (t) => {
		const [long = 0, short = 0] = crowd(
			[
				{ priority: "interactive", serviceMs: 180_000 },
				{ priority: "interactive", serviceMs: 10_000 },
			],
			...([1, 20 * hourMs] as const),
		);
		// While the long one's next waits for as long as it may, the other goes.
		t.ok(long / short < 1.1 * (180_000 / maxWaitMs), `${long} and ${short}`);
	},
);

t.test(
	"a lower class has no more than a request for each time that it may be passed over",
	async (t) => {
		const [low = 0, high = 0] = crowd(
			[
				{ priority: "normal", serviceMs: 660_000 },
				{ priority: "interactive", serviceMs: 60_000 },
			],
			...([1, 20 * hourMs] as const),
		);
		t.ok(low / high < 1.15, `${low} and ${high}`);
	},
);

t.test("who has a request at work is not passed over", async (t) => {
	const turns = new Turns({ ...defaultSettings, parallel: 2 });
	turns.loaded(new Set(["m"]), 0);
	for (let count = 0; count < 3; count += 1) turns.arrived(asked("ann"), 0);
	const [first, second] = go(turns, 0);
	assert.ok(first !== undefined && second !== undefined);
	// A line that began anew while something of its user ran is none either.
	const own = turns.arrived(asked("ann", { priority: "batch" }), 0);
	turns.left(own);
	const high = { priority: "interactive" } as const;
	turns.arrived(asked("bob", high), 650_000);
	turns.finished(first, 700_000);
	const [bob] = go(turns, 700_000);
	t.equal(bob?.asked.user, "bob", "one of ann's has gone on all the time");
	turns.finished(second, 710_000);
	const [ann] = go(turns, 710_000);
	t.equal(ann?.asked.user, "ann");
	turns.arrived(asked("ann"), 710_000);
	turns.arrived(asked("cyd", high), 1_400_000);
	assert.ok(bob !== undefined && ann !== undefined);
	turns.finished(bob, 1_400_000);
	t.equal(go(turns, 1_400_000)[0]?.asked.user, "cyd");
	turns.arrived(asked("cyd", high), 1_400_000);
	turns.finished(ann, 1_500_000);
	t.equal(go(turns, 1_500_000)[0]?.asked.user, "cyd", "it begins now");
});

t.test("from the end of its last request on one is passed over", async (t) => {
	const turns = new Turns({ ...defaultSettings, parallel: 2 });
	turns.loaded(new Set(["m"]), 0);
	const high = { priority: "interactive" } as const;
	turns.arrived(asked("ann"), 0);
	turns.arrived(asked("bob", high), 0);
	const [bob, ann] = go(turns, 0);
	assert.ok(bob !== undefined && ann !== undefined);
	const next = turns.arrived(asked("ann"), 10);
	for (let count = 0; count < 9; count += 1)
		turns.arrived(asked("bob", high), 10);
	turns.finished(ann, 100_000);
	const [more] = go(turns, 100_000);
	t.equal(more?.asked.user, "bob");
	turns.finished(bob, 699_000);
	const [again] = go(turns, 699_000);
	t.equal(again?.asked.user, "bob");
	assert.ok(more !== undefined);
	turns.finished(more, 700_000);
	t.same(go(turns, 700_000), [next]);
});

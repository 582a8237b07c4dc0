import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { CommonQueue } from "../../src/queue/common.ts";
import type { Place } from "../../src/queue/model.ts";
import { Turns } from "../../src/queue/turns.ts";

const settings = {
	parallel: 1,
	maxWaitMs: { interactive: 1e9, normal: 1e9, batch: 1e9 },
	turnFactor: 8,
};

/** The turns of several hosts, each with one slot and its model loaded. */
function hostsWith(count: number): Turns[] {
	const { fairness } = new CommonQueue();
	return Array.from({ length: count }, () => {
		const turns = new Turns(settings, fairness);
		turns.loaded(undefined, 0);
		return turns;
	});
}

const asked = (user: string) => ({
	...{ user, share: 1, model: "m", isStream: true },
	priority: "normal" as const,
});

t.test("whom one host has served stands back at another", async (t) => {
	const [one, two] = hostsWith(2) as [Turns, Turns];
	one.arrived(asked("a"), 0);
	const running = one.next(0);
	t.equal(running?.asked.user, "a");
	// Both go on wanting something, so that nobody is forgotten.
	for (const user of ["a", "b"]) one.arrived(asked(user), 1);
	if (running !== undefined) one.finished(running, 10_000);
	for (const user of ["a", "b"]) two.arrived(asked(user), 10_000);
	t.equal(two.next(10_000)?.asked.user, "b", "though a came first");
});

t.test(
	"users who always wait at every host get the same of all hosts together",
	async (t) => {
		const length = fc.integer({ min: 1, max: 1_000 });
		fc.assert(
			fc.property(
				fc.integer({ min: 1, max: 4 }),
				fc.array(length, { minLength: 20, maxLength: 200 }),
				(count, lengths) => {
					const users = ["a", "b", "c"];
					const hosts = hostsWith(count).map((turns) => ({
						turns,
						running: undefined as Place | undefined,
						endsMs: 0,
					}));
					const served = new Map(users.map((user) => [user, 0]));
					// One that runs, and one that waits all the while.
					for (const { turns } of hosts)
						for (const user of [...users, ...users])
							turns.arrived(asked(user), 0);
					let longest = 0;
					for (const ms of lengths) {
						const host = hosts.reduce((first, other) =>
							other.endsMs < first.endsMs ? other : first,
						);
						const nowMs = host.endsMs;
						if (host.running !== undefined) {
							const { user } = host.running.asked;
							const servedMs = host.turns.finished(host.running, nowMs);
							served.set(user, (served.get(user) ?? 0) + servedMs);
							host.turns.arrived(asked(user), nowMs);
						}
						host.running = host.turns.next(nowMs);
						assert.ok(host.running !== undefined, "no slot stays free");
						host.turns.firstByte(host.running, nowMs);
						host.endsMs = nowMs + ms;
						longest = Math.max(longest, ms);
					}
					const all = [...served.values()];
					// Two of the longest for each slot (docs/queue.md); a guess of a second counts as one.
					const bound = 2 * Math.max(longest, 1_000) * count;
					assert.ok(Math.max(...all) - Math.min(...all) <= bound);
				},
			),
			{ numRuns: 300 },
		);
		t.pass();
	},
);

import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { Fairness } from "../../src/queue/fairness.ts";
import { Simulation } from "./simulation.ts";

/** Of turns.ts: what a request is taken to need before one has ended. */
const firstGuessMs = 1000;
const tickMs = 100;
const forLongMs = 60_000;
const patient = {
	maxWaitMs: { interactive: 1e9, normal: 1e9, batch: 1e9 },
};

/** How long the requests of a user are. */
const lengths = fc.oneof(
	fc.constantFrom([100], [10_000], [10, 10_000], [10, 10, 10, 10, 10, 5000]),
	fc.array(fc.integer({ min: 1, max: 10_000 }), { minLength: 1, maxLength: 6 }),
);
const user = fc.record({
	share: fc.constantFrom(0.5, 1, 1, 2, 4),
	lengths,
	isStream: fc.boolean(),
	/** How many requests it has open, beyond one for each slot. */
	more: fc.constantFrom(1, 2, 20),
	comesMs: fc.nat({ max: 20_000 }),
});

interface User {
	readonly share: number;
	readonly lengths: readonly number[];
	readonly isStream: boolean;
	readonly more: number;
	readonly comesMs: number;
}

/** Users that wait from when they come until the end; `look` is called at every event. */
function crowd(
	users: readonly User[],
	slots: number,
	settings: object,
	look: (simulation: Simulation) => void,
): void {
	const simulation = new Simulation({
		...{ machine: { room: 1, parallel: slots, loadMs: 10 }, tickMs },
		settings: { parallel: slots, ...settings },
	});
	for (const [
		index,
		{ share, lengths, isStream, more, comesMs },
	] of users.entries()) {
		let number = 0;
		const one = () => {
			const serviceMs = lengths[number % lengths.length] ?? 1;
			number += 1;
			simulation.submit(
				{
					...{ user: `${index}`, share, priority: "normal", model: "m" },
					...{ isStream, firstByteMs: 1, serviceMs },
				},
				() => {
					if (simulation.nowMs < forLongMs) one();
				},
			);
		};
		simulation.arrivals += 1;
		simulation.clock.at(comesMs, () => {
			simulation.arrivals -= 1;
			for (let count = 0; count < slots + more; count += 1) one();
		});
	}
	simulation.onEvent = () => look(simulation);
	simulation.run(forLongMs);
}

const longestOf = (users: readonly User[]) =>
	Math.max(firstGuessMs, ...users.flatMap(({ lengths }) => lengths));
const leastShareOf = (users: readonly User[]) =>
	Math.min(...users.map(({ share }) => share));

const simple = { share: 1, isStream: true, more: 1, comesMs: 0 };

t.test(
	"two users that wait from one moment on differ by at most one of the longest requests for each slot",
	async () => {
		fc.assert(
			fc.property(user, user, fc.integer({ min: 1, max: 4 }), (a, b, slots) => {
				const users = [a, b].map((one) => ({ ...one, comesMs: 0 }));
				const unitMs = longestOf(users) / leastShareOf(users);
				const mostMs = slots * (unitMs + tickMs / leastShareOf(users));
				crowd(users, slots, patient, (simulation) => {
					const apartMs = Math.abs(
						simulation.servedMs("0") / a.share -
							simulation.servedMs("1") / b.share,
					);
					assert.ok(apartMs <= mostMs, `${apartMs} of ${mostMs} ms`);
				});
			}),
			{ numRuns: 100 },
		);
	},
);

t.test(
	"one that comes later gets as much from then on as those who wait, but for twice that",
	async () => {
		fc.assert(
			fc.property(
				fc.array(user, { minLength: 2, maxLength: 4 }),
				fc.constantFrom(1, 4),
				fc.constantFrom(10_000, 30_000, 1e9),
				(users, slots, waitMs) => {
					// A round of the others takes less than a class may be passed over.
					fc.pre(longestOf(users) * (users.length - 1) < waitMs);
					const even = users.map((one) => ({ ...one, share: 1 }));
					const mostMs = 2 * slots * (longestOf(even) + tickMs);
					const maxWaitMs = {
						...{ interactive: waitMs, normal: waitMs, batch: waitMs },
					};
					const before = new Map<number, number[]>();
					crowd(even, slots, { maxWaitMs }, (simulation) => {
						const served = even.map((_, index) =>
							simulation.servedMs(`${index}`),
						);
						for (const [index, { comesMs }] of even.entries()) {
							if (simulation.nowMs < comesMs) continue;
							if (!before.has(index)) before.set(index, served);
							for (const [other, { comesMs: earlierMs }] of even.entries()) {
								if (earlierMs > comesMs) continue;
								const since = (one: number) =>
									(served[one] ?? 0) - (before.get(index)?.[one] ?? 0);
								const apartMs = Math.abs(since(index) - since(other));
								assert.ok(apartMs <= mostMs, `${apartMs} of ${mostMs} ms`);
							}
						}
					});
				},
			),
			{ numRuns: 40 },
		);
	},
);

t.test("whoever was away has saved up nothing", async (t) => {
	const fairness = new Fairness();
	const busy = fairness.enter("busy", 1);
	fairness.enter("busy", 1);
	fairness.finish(fairness.start(busy), 60_000);
	const back = fairness.enter("back", 1);
	t.equal(back.counter, 60_000);
});

t.test("a start out of turn does not put off who comes after it", async (t) => {
	const fairness = new Fairness();
	fairness.enter("waits", 1);
	const served = fairness.enter("served", 1);
	fairness.enter("served", 1);
	fairness.finish(fairness.start(served), 60_000);
	fairness.start(served);
	t.equal(fairness.enter("comes", 1).counter, 0);
});

t.test("a user with a share of 2 gets twice as much", async (t) => {
	const user = { ...simple, lengths: [500] };
	let served = [0, 0];
	crowd(
		[user, { ...user, share: 2 }],
		...([1, patient] as const),
		(simulation) => {
			served = ["0", "1"].map((user) => simulation.servedMs(user));
		},
	);
	const [one = 0, two = 0] = served;
	t.ok(Math.abs(two / one - 2) < 0.1, `${one} and ${two}`);
});

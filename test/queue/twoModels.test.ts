import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { Simulation } from "./simulation.ts";

const turnFactor = 8;
const endMs = 600_000;

/** Users, each of a model of its own, that have so many requests open at all times. */
function users(
	open: readonly number[],
	lengthsMs: readonly number[],
	machine: { room: number; parallel: number; loadMs: number },
	maxWaitMs = 1e9,
): Simulation {
	const simulation = new Simulation({
		machine,
		settings: {
			...{ parallel: machine.parallel, turnFactor },
			maxWaitMs: {
				interactive: maxWaitMs,
				normal: maxWaitMs,
				batch: maxWaitMs,
			},
		},
		tickMs: 500,
	});
	for (const [index, count] of open.entries()) {
		let number = index;
		const one = () => {
			number += 1;
			simulation.submit(
				{
					...{ user: `${index}`, share: 1, priority: "normal" },
					...{ model: `${index}`, isStream: true, firstByteMs: 1 },
					serviceMs: lengthsMs[number % lengthsMs.length] ?? 1,
				},
				() => {
					if (simulation.nowMs < endMs) one();
				},
			);
		};
		for (let times = 0; times < count; times += 1) one();
	}
	simulation.run(endMs);
	return simulation;
}

/** How long a user was without any request of its own at Ollama. */
function longestGapMs({ trips }: Simulation, user: string): number {
	let gapMs = 0;
	let lastMs = 0;
	for (const { request, startedMs } of trips
		.filter(({ request }) => request.user === user)
		.sort((a, b) => a.startedMs - b.startedMs)) {
		if (startedMs === Number.POSITIVE_INFINITY) continue;
		gapMs = Math.max(gapMs, startedMs - lastMs);
		lastMs = startedMs + request.serviceMs;
	}
	return gapMs;
}

const machine = fc.record({
	room: fc.constant(1),
	parallel: fc.constantFrom(1, 4),
	loadMs: fc.integer({ min: 100, max: 3000 }),
});
const lengthsMs = fc.array(fc.integer({ min: 50, max: 4000 }), {
	minLength: 1,
	maxLength: 4,
});

t.test(
	"two models with room for one: loads take their part of the time at most, nobody waits for more than two turns, both get the same",
	async () => {
		fc.assert(
			fc.property(
				machine,
				lengthsMs,
				fc.integer({ min: 2, max: 12 }),
				(machine, lengthsMs, more) => {
					const open = machine.parallel + more;
					const simulation = users([open, open], lengthsMs, machine);
					const { loadMs } = machine;
					const longestMs = Math.max(...lengthsMs);
					assert.ok(
						simulation.ollama.loadingMs <=
							endMs / (turnFactor + 1) + 2 * loadMs,
						`${simulation.ollama.loadingMs} ms were loads`,
					);
					const turnMs = turnFactor * (loadMs + 1) + longestMs;
					for (const user of ["0", "1"]) {
						const gapMs = longestGapMs(simulation, user);
						const mostMs =
							2 * turnMs + 2 * loadMs + machine.parallel * longestMs;
						assert.ok(gapMs <= mostMs, `${gapMs} of ${mostMs} ms`);
					}
					const [one, two] = ["0", "1"].map((user) =>
						simulation.servedMs(user),
					);
					const ratio = (one ?? 0) / (two ?? 1);
					assert.ok(ratio > 0.85 && ratio < 1 / 0.85, `${one} and ${two} ms`);
				},
			),
			{ numRuns: 40 },
		);
	},
);

t.test(
	"with one request open each, loads take their part of the time at most too",
	async () => {
		fc.assert(
			fc.property(machine, lengthsMs, (machine, lengthsMs) => {
				const { ollama } = users([1, 1], lengthsMs, machine);
				const mostMs = endMs / (turnFactor + 1) + 2 * machine.loadMs;
				assert.ok(ollama.loadingMs <= mostMs, `${ollama.loadingMs} ms`);
			}),
			{ numRuns: 40 },
		);
	},
);

t.test(
	"when all have waited for longer than they may be passed over, loads take no more of the time",
	async () => {
		fc.assert(
			fc.property(lengthsMs, (lengthsMs) => {
				const machine = { room: 1, parallel: 1, loadMs: 1000 };
				const { ollama } = users([64, 64], lengthsMs, machine, 30_000);
				const mostMs = endMs / (turnFactor + 1) + 2 * machine.loadMs;
				assert.ok(ollama.loadingMs <= mostMs, `${ollama.loadingMs} ms`);
			}),
			{ numRuns: 8 },
		);
	},
);

const maxWaitMs = 60_000;

t.test(
	"of four models with room for one to three, none waits for longer than a class may and what is due before it",
	async () => {
		fc.assert(
			fc.property(
				fc.record({
					room: fc.integer({ min: 1, max: 3 }),
					parallel: fc.constantFrom(1, 4),
					loadMs: fc.integer({ min: 100, max: 1000 }),
				}),
				lengthsMs,
				fc.integer({ min: 1, max: 8 }),
				(machine, lengthsMs, open) => {
					const four = [open, open, open, open];
					const simulation = users(four, lengthsMs, machine, maxWaitMs);
					const { loadMs, parallel } = machine;
					const longestMs = Math.max(...lengthsMs);
					const turnMs = (2 * turnFactor + 1) * loadMs + parallel * longestMs;
					// Whoever has had much while others had to wait for a load waits longest.
					for (const user of ["0", "1", "2", "3"]) {
						const gapMs = longestGapMs(simulation, user);
						const mostMs = maxWaitMs + 4 * turnMs;
						assert.ok(gapMs <= mostMs, `${user}: ${gapMs} of ${mostMs} ms`);
					}
				},
			),
			{ numRuns: 25 },
		);
	},
);

t.test("two models that fit together are loaded once each", async (t) => {
	const { ollama } = users([2, 2], [500], {
		...{ room: 2, parallel: 1, loadMs: 1000 },
	});
	t.equal(ollama.loads, 2);
});

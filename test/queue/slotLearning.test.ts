import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import type { Model } from "../../src/queue/model.ts";
import { Simulation } from "./simulation.ts";

const endMs = 400_000;

function busy(
	parallel: number,
	[firstByteMs, serviceMs]: readonly [number, number],
	isStream: (number: number) => boolean,
	jitter: readonly number[] = [1],
): { simulation: Simulation; model: Model } {
	const simulation = new Simulation({
		machine: { room: 1, parallel, loadMs: 100 },
	});
	let number = 0;
	const one = (user: string) => {
		number += 1;
		const factor = jitter[number % jitter.length] ?? 1;
		simulation.submit(
			{
				...{ user, share: 1, priority: "normal", model: "m" },
				...{ isStream: isStream(number), firstByteMs },
				serviceMs: firstByteMs + (serviceMs - firstByteMs) * factor,
			},
			() => {
				if (simulation.nowMs < endMs) one(user);
			},
		);
	};
	for (let count = 0; count < 12; count += 1) one(`${count % 3}`);
	const [model] = simulation.turns.models;
	assert.ok(model !== undefined);
	simulation.onEvent = () =>
		assert.ok(model.slots.known <= parallel, "more than there are");
	simulation.run(endMs);
	return { simulation, model };
}

for (const parallel of [1, 2, 4])
	t.test(
		`with ${parallel} at once, all slots are found by streams`,
		async () => {
			fc.assert(
				fc.property(
					fc.constantFrom<(readonly [number, number])[]>(
						...([
							[10, 300],
							[100, 300],
							[500, 5000],
							[2000, 8000],
						] as const),
					),
					fc.array(fc.double({ min: 0.5, max: 1.5, noNaN: true }), {
						...{ minLength: 7, maxLength: 13 },
					}),
					(times, jitter) => {
						const { model } = busy(parallel, times, () => true, jitter);
						assert.equal(model.slots.known, parallel);
					},
				),
				{ numRuns: 10 },
			);
		},
	);

t.test(
	"replies that are no streams are not taken for a slot more",
	async () => {
		for (const parallel of [1, 2, 4]) {
			busy(parallel, [10, 300], () => false);
			busy(parallel, [10, 300], (number) => number % 2 === 0);
		}
	},
);

t.test(
	"a limit that was found is kept, until Ollama is started anew",
	async (t) => {
		const { simulation, model } = busy(2, [10, 300], () => true);
		t.equal(model.slots.known, 2);
		simulation.turns.forget();
		t.equal(model.slots.known, 1);
	},
);

t.test("what was set is neither learnt nor exceeded", async (t) => {
	const simulation = new Simulation({
		machine: { room: 1, parallel: 4, loadMs: 100 },
		settings: { parallel: 2 },
	});
	for (let count = 0; count < 20; count += 1)
		simulation.submit({
			...{ user: "ann", share: 1, priority: "normal", model: "m" },
			...{ isStream: true, firstByteMs: 10, serviceMs: 20_000 },
		});
	let most = 0;
	simulation.onEvent = () => {
		most = Math.max(most, simulation.running);
	};
	simulation.run();
	t.equal(most, 2);
});

t.test(
	"where Ollama does not say what is loaded, slots are found as well",
	async (t) => {
		const simulation = new Simulation({
			machine: { room: 1, parallel: 2, loadMs: 100 },
			psMs: Number.POSITIVE_INFINITY,
		});
		simulation.turns.loaded(undefined, 0);
		for (let count = 0; count < 200; count += 1)
			simulation.submit({
				...{ user: "ann", share: 1, priority: "normal", model: "m" },
				...{ isStream: true, firstByteMs: 10, serviceMs: 300 },
			});
		const [model] = simulation.turns.models;
		simulation.run();
		t.equal(model?.slots.known, 2);
	},
);

import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import type { Model } from "../../src/queue/model.ts";
import { Turns } from "../../src/queue/turns.ts";
import { defaultSettings, Simulation } from "./simulation.ts";

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

/** The same users go on until then, with such requests. */
function goOn(
	simulation: Simulation,
	untilMs: number,
	[firstByteMs, serviceMs]: readonly [number, number] = [10, 300],
): void {
	const one = (user: string) => {
		simulation.submit(
			{
				...{ user, share: 1, priority: "normal", model: "m" },
				...{ isStream: true, firstByteMs, serviceMs },
			},
			() => {
				if (simulation.nowMs < untilMs) one(user);
			},
		);
	};
	for (let count = 0; count < 12; count += 1) one(`${count % 3}`);
	simulation.run(untilMs);
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
						const { simulation, model } = busy(
							...([parallel, times] as const),
							...([() => true, jitter] as const),
						);
						// Rarely one of the others ends ahead of each try's first byte: then with another load, by the next try.
						if (model.slots.known !== parallel)
							goOn(simulation, simulation.nowMs + 3_630_000);
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

t.test(
	"an Ollama that has fewer slots after a restart that nobody saw is found out",
	async (t) => {
		const { simulation, model } = busy(4, [10, 300], () => true);
		t.equal(model.slots.known, 4);
		const { ollama } = simulation;
		ollama.machine = { ...ollama.machine, parallel: 1 };
		goOn(simulation, 2 * endMs);
		t.equal(model.slots.known, 1);
	},
);

t.test("and one that has more", async (t) => {
	const { simulation, model } = busy(1, [10, 300], () => true);
	t.equal(model.slots.known, 1);
	const { ollama } = simulation;
	ollama.machine = { ...ollama.machine, parallel: 4 };
	simulation.onEvent = () => {};
	// The next try is an hour away at the most, and all are found soon after it.
	goOn(simulation, simulation.nowMs + 3_600_000 + 30_000);
	t.equal(model.slots.known, 4);
});

t.test(
	"long prompts beside short replies are not taken for a lack of slots",
	async (t) => {
		const { simulation, model } = busy(4, [10, 300], () => true);
		t.equal(model.slots.known, 4);
		let least = 4;
		simulation.onEvent = () => {
			least = Math.min(least, model.slots.known);
		};
		for (const [at, times] of (
			[
				[15, 400],
				[100, 300],
				[250, 300],
				[1000, 1100],
				[20_000, 25_000],
			] as const
		).entries())
			goOn(simulation, (at + 2) * endMs, times);
		t.equal(least, 4);
	},
);

/** One model that is loaded, with a request of bob's at work. */
function oneAtWork() {
	const turns = new Turns({ ...defaultSettings, parallel: "auto" });
	turns.loaded(new Set(["m"]), 0);
	const send = (user: string, nowMs: number) => {
		const asked = { user, share: 1, priority: "normal", model: "m" } as const;
		turns.arrived({ ...asked, isStream: true }, nowMs);
		const place = turns.next(nowMs);
		assert.ok(place !== undefined);
		return place;
	};
	const running = send("bob", 0);
	turns.firstByte(running, 10);
	return { turns, send, running, slots: running.model.slots };
}

for (const [what, isWork, works, known] of [
	["the GPU does not work for", false, true, 1],
	["is answered at once, and not by the GPU,", true, false, 1],
	["the GPU works for", true, true, 2],
] as const)
	t.test(`a try that ${what} makes it ${known}`, async (t) => {
		const { turns, send, slots } = oneAtWork();
		const tried = send("ann", 20);
		turns.firstByte(tried, 30, isWork);
		t.equal(slots.known, 1, "its head alone says nothing");
		if (works) turns.worked(tried, 40);
		turns.finished(tried, 50);
		t.equal(slots.known, known);
		t.equal(slots.isTrying, false);
	});

t.test("a try whose rivals end after its first byte fits", async (t) => {
	const { turns, send, running, slots } = oneAtWork();
	const tried = send("ann", 20);
	turns.firstByte(tried, 30);
	turns.finished(running, 40);
	turns.worked(tried, 50);
	t.equal(slots.known, 2);
});

for (const who of ["running", "tried"] as const)
	t.test(
		`a client that does not read teaches nothing of slots: of the one ${who}`,
		async (t) => {
			const { turns, send, running, slots } = oneAtWork();
			const tried = send("ann", 20);
			({ running, tried })[who].hasStalled = true;
			turns.firstByte(tried, 30);
			turns.worked(tried, 40);
			turns.finished(tried, 50);
			t.equal(slots.known, 1);
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

import assert from "node:assert/strict";
import fc from "fast-check";
import type { Priority } from "../../src/priority.ts";
import { never, type Request, Simulation } from "./simulation.ts";

/** What happens to an Ollama and to those who use it. */
export interface Trace {
	readonly room: number;
	readonly parallel: number;
	readonly known: number | "auto";
	readonly loadMs: number;
	readonly psMs: number;
	readonly maxWaitMs: number;
	/** Numbers of loads that come to nothing. */
	readonly failing: readonly number[];
	readonly restartsMs: readonly number[];
	readonly expiries: readonly (readonly [number, string])[];
	readonly requests: readonly (Request & { readonly atMs: number })[];
}

const models = ["m", "n", "o", "p"] as const;
const atMs = fc.nat({ max: 15_000 });
const request = fc
	.record({
		atMs,
		user: fc.constantFrom("ann", "bob", "cyd", "dan"),
		share: fc.constantFrom(1, 1, 2, 3),
		priority: fc.constantFrom<Priority[]>(
			...(["normal", "normal", "interactive", "batch"] as const),
		),
		model: fc.constantFrom(...models, "m", "m"),
		isStream: fc.boolean(),
		firstByteMs: fc.integer({ min: 1, max: 50 }),
		moreMs: fc.nat({ max: 2000 }),
		patienceMs: fc.option(fc.nat({ max: 5000 }), { nil: undefined, freq: 3 }),
	})
	.map(({ moreMs, patienceMs, ...rest }) => ({
		...rest,
		serviceMs: rest.firstByteMs + moreMs,
		...(patienceMs === undefined ? {} : { patienceMs }),
	}));

/** Traces of some seconds. */
export const trace: fc.Arbitrary<Trace> = fc.record({
	room: fc.integer({ min: 1, max: 3 }),
	parallel: fc.constantFrom(1, 2, 4),
	known: fc.constantFrom<("auto" | number)[]>("auto", "auto", 1, 2, 4),
	loadMs: fc.integer({ min: 1, max: 1500 }),
	psMs: fc.constantFrom(0, 2, 300, never),
	maxWaitMs: fc.constantFrom(500, 5000, 600_000),
	failing: fc.array(fc.nat({ max: 6 }), { maxLength: 2 }),
	restartsMs: fc.array(atMs, { maxLength: 1 }),
	expiries: fc.array(fc.tuple(atMs, fc.constantFrom(...models)), {
		maxLength: 2,
	}),
	requests: fc
		.array(request, { minLength: 1, maxLength: 40 })
		.map((requests) => requests.map(withoutTies)),
});

/** Nobody leaves in the very millisecond in which something else happens: which comes first would be chance. */
function withoutTies<R extends Request>(one: R, index: number): R {
	return one.patienceMs === undefined
		? one
		: { ...one, patienceMs: one.patienceMs + (index + 1) / 1009 };
}

/**
 * Runs a trace to its end, with a look at every invariant after every event.
 *
 * @param isLinedUp each request is in a line first, also where it can pass at once
 */
export function play(one: Trace, isLinedUp = false): Simulation {
	const { maxWaitMs, failing, restartsMs, expiries } = one;
	const simulation = new Simulation({
		machine: {
			...{ room: one.room, parallel: one.parallel, loadMs: one.loadMs },
			failsToLoad: (load) => failing.includes(load),
		},
		psMs: one.psMs,
		isStrict: true,
		isLinedUp,
		mayVanish: restartsMs.length + expiries.length > 0,
		settings: {
			parallel: one.known,
			maxWaitMs: {
				...{ interactive: maxWaitMs, normal: 2 * maxWaitMs },
				batch: 4 * maxWaitMs,
			},
		},
	});
	const { clock, ollama } = simulation;
	for (const { atMs, ...rest } of one.requests) simulation.arriveAt(atMs, rest);
	for (const at of restartsMs) clock.at(at, () => simulation.restart());
	for (const [at, model] of expiries)
		clock.at(at, () => void ollama.expire(model));
	simulation.run();
	assert.equal(simulation.waiting + simulation.running, 0, "it stands still");
	return simulation;
}

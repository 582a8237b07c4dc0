import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import {
	type Candidate,
	chooseHost,
	rankOf,
	waitOf,
} from "../../src/upstream/hosts/chooseHost.ts";

const idle: Candidate = {
	state: "up",
	weight: 1,
	hasModel: true,
	knowsRoute: true,
	isLoaded: true,
	waitingMs: 0,
	loadMs: 10_000,
	isTried: false,
};
const candidate: fc.Arbitrary<Candidate> = fc.record({
	state: fc.constantFrom("up", "suspect", "down", "half-open"),
	weight: fc.constantFrom(0.5, 1, 2, 10),
	hasModel: fc.constantFrom(true, false, undefined),
	knowsRoute: fc.boolean(),
	isLoaded: fc.boolean(),
	waitingMs: fc.integer({ min: 0, max: 100_000 }),
	loadMs: fc.integer({ min: 0, max: 60_000 }),
	isTried: fc.boolean(),
});
const candidates = fc.array(fc.option(candidate, { nil: undefined }), {
	maxLength: 16,
});

t.test("one that has the model goes before one that is idle", async (t) => {
	t.equal(
		chooseHost([
			{ ...idle, hasModel: false },
			{ ...idle, isLoaded: false, waitingMs: 60_000 },
		]),
		1,
	);
});

t.test(
	"one that has it loaded goes before one that would load it",
	async (t) => {
		t.equal(
			chooseHost([
				{ ...idle, isLoaded: false },
				{ ...idle, waitingMs: 9_000 },
			]),
			1,
		);
	},
);

t.test("a queue longer than a load makes another load it", async (t) => {
	t.equal(
		chooseHost([
			{ ...idle, isLoaded: false },
			{ ...idle, waitingMs: 11_000 },
		]),
		0,
	);
});

t.test(
	"of equals the one goes first where less waits, by weight",
	async (t) => {
		const busy = { ...idle, waitingMs: 3_000 };
		t.equal(chooseHost([busy, { ...idle, waitingMs: 2_000 }]), 1);
		t.equal(
			chooseHost([
				{ ...busy, weight: 2 },
				{ ...idle, waitingMs: 2_000 },
			]),
			0,
		);
		t.equal(chooseHost([busy, busy]), 0);
	},
);

t.test("a suspect host is asked where no other will do", async (t) => {
	const suspect: Candidate = { ...idle, state: "suspect" };
	t.equal(chooseHost([suspect, { ...idle, waitingMs: 9_000 }]), 1);
	t.equal(chooseHost([suspect, { ...idle, hasModel: false }]), 0);
});

t.test("a half-open host is tried by one request at a time", async (t) => {
	const halfOpen: Candidate = { ...idle, state: "half-open" };
	t.equal(chooseHost([halfOpen]), 0);
	t.equal(chooseHost([{ ...halfOpen, isTried: true }]), -1);
});

t.test(
	"a conversation stays until the queue costs more than its cache saves",
	async (t) => {
		const busy = { ...idle, waitingMs: 4_000 };
		t.equal(chooseHost([idle, busy], { index: 1, worthMs: 5_000 }), 1);
		t.equal(chooseHost([idle, busy], { index: 1, worthMs: 3_000 }), 0);
		const down: Candidate = { ...idle, state: "down" };
		t.equal(chooseHost([idle, down], { index: 1, worthMs: 5_000 }), 0);
	},
);

t.test("whatever there is to choose from", async (t) => {
	fc.assert(
		fc.property(
			candidates,
			fc.option(
				fc.record({
					index: fc.integer({ min: 0, max: 15 }),
					worthMs: fc.integer({ min: 0, max: 30_000 }),
				}),
				{ nil: undefined },
			),
			(list, sticky) => {
				const at = chooseHost(list, sticky);
				const able = list.filter(
					(one): one is Candidate =>
						one !== undefined && one.state !== "down" && !one.isTried,
				);
				if (at === -1) {
					assert.equal(able.length, 0, "nobody was passed over");
					return;
				}
				const chosen = list[at];
				assert.ok(chosen !== undefined && able.includes(chosen));
				const patience = sticky?.index === at ? sticky.worthMs : 0;
				for (const other of able) {
					assert.ok(rankOf(chosen) <= rankOf(other));
					if (rankOf(chosen) === rankOf(other))
						assert.ok(waitOf(chosen) <= waitOf(other) + patience);
					// One that has the model is never passed over for one that has not.
					if (other.hasModel === true) assert.notEqual(chosen.hasModel, false);
					if (other.hasModel === true && other.knowsRoute)
						assert.ok(chosen.hasModel === true && chosen.knowsRoute);
				}
				// More work on a host never draws a request there.
				const busier = list.map((one, index) =>
					index !== at && one !== undefined
						? { ...one, waitingMs: one.waitingMs + 1_000 }
						: one,
				);
				assert.equal(
					chooseHost(busier, sticky?.index === at ? sticky : undefined),
					chooseHost(list, sticky?.index === at ? sticky : undefined),
				);
			},
		),
		{ numRuns: 2_000 },
	);
	t.pass();
});

import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { type Priority, priorities } from "../../src/priority.ts";
import { aheadOf } from "../../src/queue/inOrder.ts";
import { Turns } from "../../src/queue/turns.ts";
import {
	asked,
	defaultSettings,
	go,
	type Request,
	Simulation,
} from "./simulation.ts";

const request = (user: string, more: Partial<Request> = {}): Request => ({
	...{ ...asked(user), firstByteMs: 1, serviceMs: 1000 },
	...more,
});
/** One model, loaded, with one slot. */
function loaded(...models: string[]): Turns {
	const turns = new Turns({ ...defaultSettings, parallel: 1 });
	turns.loaded(new Set(models.length === 0 ? ["m"] : models), 0);
	return turns;
}

t.test(
	"one who comes goes before the eleven that a batch has waiting",
	async (t) => {
		const turns = loaded();
		for (let count = 0; count < 12; count += 1)
			turns.arrived(asked("batch"), 0);
		const first = turns.next(0);
		const one = turns.arrived(asked("ann"), 500);
		t.equal(turns.next(500), undefined, "the slot is in use");
		t.equal(aheadOf(one), 0);
		assert.ok(first !== undefined);
		turns.finished(first, 1000);
		t.equal(turns.next(1000), one);
	},
);

t.test("a higher class goes first, however much it has had", async (t) => {
	const turns = loaded();
	const low = turns.arrived(asked("ann"), 0);
	const high = turns.arrived(asked("bob", { priority: "interactive" }), 1);
	t.equal(turns.next(2), high);
	turns.finished(high, 60_000);
	const again = turns.arrived(
		asked("bob", { priority: "interactive" }),
		60_000,
	);
	t.equal(turns.next(60_000), again);
	t.equal(low.state, "waiting");
});

t.test("a request whose class was lowered competes there", async (t) => {
	const turns = loaded();
	const lowered = turns.arrived(asked("ann", { priority: "batch" }), 0);
	const other = turns.arrived(asked("bob"), 1);
	const own = turns.arrived(asked("ann", { priority: "interactive" }), 2);
	t.equal(turns.next(3), own);
	turns.finished(own, 4);
	t.equal(turns.next(4), other);
	turns.finished(other, 5);
	t.equal(turns.next(5), lowered);
});

t.test(
	"whoever has been passed over for as long as its class may be goes first",
	async (t) => {
		const turns = loaded();
		const low = turns.arrived(asked("ann", { priority: "batch" }), 0);
		turns.arrived(asked("bob", { priority: "interactive" }), 21_600_000);
		t.equal(turns.next(21_600_000), low);
	},
);

/** A model with these slots, of which all are in use by one user, and what that user has waiting. */
function busy(parallel: number, priority: Priority, minds: number) {
	const turns = new Turns({ ...defaultSettings, parallel });
	turns.loaded(new Set(["m"]), 0);
	const own = asked("night", { priority });
	for (let count = 0; count < 12; count += 1) turns.arrived(own, 0);
	const first = go(turns, 0);
	for (const place of first) turns.finished(place, minds);
	return { turns, own, first };
}

for (const priority of ["normal", "batch"] as const)
	t.test(
		`who has all other slots takes the last when one is about to fall free, of class ${priority}`,
		async (t) => {
			const { turns, own, first } = busy(4, priority, 9_000);
			t.equal(first.length, 4, "by itself it has all of them");
			const ann = turns.arrived(asked("ann"), 9_000);
			const second = go(turns, 9_000);
			t.equal(second.length, 4);
			t.ok(second.includes(ann));
			turns.finished(ann, 10_000);
			t.same(go(turns, 10_000), [], "who comes next finds one free");
			t.equal(turns.pass(own, 10_000), undefined);
			t.equal(turns.wakeMs, 15_000, "when one of the others has 3 s left of 9");
			const bob = turns.arrived(asked("bob"), 11_000);
			t.same(go(turns, 11_000), [bob]);
			turns.finished(bob, 13_000);
			t.same(go(turns, 14_999), []);
			t.equal(go(turns, 15_000).length, 1);
			for (const place of second)
				if (place !== ann) turns.finished(place, 18_000);
			t.equal(go(turns, 18_000).length, 2, "three of its own again");
			t.equal(turns.wakeMs, 21_000, "and then one ends after the other");
		},
	);

t.test("what has the last slot to itself is not held back", async (t) => {
	const { turns, own } = busy(4, "normal", 8_000);
	t.equal(go(turns, 8_000).length, 4, "nobody else has been here");
	const held = busy(4, "normal", 8_000).turns;
	held.arrived(asked("ann"), 8_000);
	const running = go(held, 8_000);
	held.arrived(asked("bob"), 8_500);
	held.arrived(asked("cyd"), 8_500);
	const [ann] = running;
	assert.ok(ann !== undefined);
	held.finished(ann, 9_000);
	t.equal(go(held, 9_000).length, 1, "others wait, and one of them goes");
	const later = busy(4, "normal", 200_000).turns;
	const [one] = go(later, 200_000);
	assert.ok(one !== undefined);
	later.arrived(asked("ann"), 200_000);
	later.finished(one, 200_001);
	const [guest] = go(later, 200_001);
	assert.ok(guest !== undefined);
	later.finished(guest, 200_002);
	t.same(go(later, 260_001), []);
	t.equal(go(later, 260_002).length, 1, "nobody has been there for a minute");
	t.equal(own.user, "night");
});

t.test("a user of a lower class is nobody to be quick for", async (t) => {
	const { turns } = busy(4, "normal", 8_000);
	const low = turns.arrived(asked("dan", { priority: "batch" }), 8_000);
	const running = go(turns, 8_000);
	t.equal(running.length, 4);
	t.notOk(running.includes(low));
});

t.test("batch of several users leaves the last slot too", async (t) => {
	const turns = new Turns({ ...defaultSettings, parallel: 4 });
	turns.loaded(new Set(["m"]), 0);
	const batch = (user: string) =>
		turns.arrived(asked(user, { priority: "batch" }), 0);
	for (const user of ["a", "b", "c", "d", "a", "b", "c", "d"]) batch(user);
	for (const place of go(turns, 0)) turns.finished(place, 8_000);
	const ann = turns.arrived(asked("ann"), 8_000);
	const running = go(turns, 8_000);
	t.equal(running.length, 4);
	turns.finished(ann, 9_000);
	t.same(go(turns, 9_000), []);
});

t.test(
	"a long request keeps the last slot free no longer than short ones beside it",
	async (t) => {
		const turns = new Turns({ ...defaultSettings, parallel: 4 });
		turns.loaded(new Set(["m"]), 0);
		const batch = (user: string, nowMs: number) =>
			turns.arrived(asked(user, { priority: "batch" }), nowMs);
		for (const user of ["long", "short", "short", "short"]) batch(user, 0);
		const first = go(turns, 0);
		batch("long", 0);
		for (let count = 0; count < 12; count += 1) batch("short", 0);
		for (const place of first)
			turns.finished(place, place.asked.user === "long" ? 600_000 : 2_000);
		turns.arrived(asked("ann"), 600_000);
		const second = go(turns, 600_000);
		t.equal(second.length, 4);
		const ann = second.find(({ asked: { user } }) => user === "ann");
		const long = second.find(({ asked: { user } }) => user === "long");
		assert.ok(ann !== undefined && long !== undefined);
		turns.finished(ann, 600_100);
		t.same(go(turns, 600_100), []);
		t.ok(turns.wakeMs < 602_000, "one of the short ones is about to end");
		t.equal(go(turns, turns.wakeMs).length, 1);
	},
);

t.test("who has waited for too long takes the last slot", async (t) => {
	const { turns } = busy(4, "batch", 8_000);
	const ann = turns.arrived(asked("ann"), 8_000);
	t.equal(go(turns, 8_000)[0], ann);
	turns.use({
		...{ ...defaultSettings, parallel: 4 },
		maxWaitMs: { ...defaultSettings.maxWaitMs, batch: 3_000 },
	});
	turns.finished(ann, 8_200);
	const dan = turns.arrived(asked("dan", { priority: "batch" }), 8_500);
	t.same(go(turns, 9_000), []);
	t.same(go(turns, 11_499), [], "nor does who has the others at work");
	t.same(go(turns, 11_500), [dan]);
});

for (const parallel of [1, 2, 3])
	t.test(`of ${parallel} slots none is left`, async (t) => {
		const { turns } = busy(parallel, "batch", 8_000);
		const ann = turns.arrived(asked("ann"), 8_000);
		t.equal(go(turns, 8_000).length, parallel);
		turns.finished(ann, 9_000);
		t.equal(go(turns, 9_000).length, 1);
	});

t.test("a long backlog of one's own is not being passed over", async (t) => {
	const turns = loaded();
	for (let count = 0; count < 60; count += 1) turns.arrived(asked("ann"), 0);
	let nowMs = 0;
	for (let place = turns.next(0); nowMs < 700_000; place = turns.next(nowMs)) {
		assert.ok(place !== undefined);
		nowMs += 20_000;
		turns.finished(place, nowMs);
	}
	const one = turns.arrived(asked("bob"), nowMs);
	t.equal(aheadOf(one), 0);
});

t.test("users who come and come do not put off one who waits", async (t) => {
	const turns = loaded();
	const first = turns.arrived(asked("ann"), 0);
	turns.next(0);
	turns.finished(first, 1000);
	let running = turns.arrived(asked("new"), 1000);
	const own = turns.arrived(asked("ann"), 1000);
	for (let number = 0; own.state === "waiting"; number += 1) {
		t.ok(number < 5, "not for ever");
		const next = turns.next(1000 + number);
		assert.ok(next !== undefined);
		running = next;
		turns.arrived(asked(`new ${number}`), 1000 + number);
		turns.finished(running, 1000 + number);
	}
});

t.test(
	"how many are ahead is what comes true, where all are of one length",
	async () => {
		fc.assert(
			fc.property(
				fc.array(
					fc.tuple(
						fc.constantFrom("ann", "bob", "cyd", "dan"),
						fc.constantFrom<Priority[]>(...priorities),
					),
					{ minLength: 1, maxLength: 25 },
				),
				(list) => {
					const simulation = new Simulation({
						machine: { room: 1, parallel: 1, loadMs: 10 },
						settings: { parallel: 1 },
					});
					simulation.submit(request("zoe", { priority: "interactive" }));
					const trips = list.map(([user, priority]) =>
						simulation.submit(request(user, { priority })),
					);
					const ahead = trips.map(({ place }) => aheadOf(place));
					simulation.run();
					const order = [...trips].sort((a, b) => a.startedMs - b.startedMs);
					assert.deepEqual(
						ahead,
						trips.map((trip) => order.indexOf(trip)),
					);
				},
			),
			{ numRuns: 300 },
		);
	},
);

t.test("one request loads a model, and all others wait for it", async (t) => {
	const turns = loaded();
	const loader = turns.arrived(asked("ann", { model: "n" }), 0);
	turns.arrived(asked("bob", { model: "n" }), 0);
	turns.arrived(asked("cyd"), 0);
	t.equal(turns.next(0), loader);
	t.equal(turns.next(1000), undefined, "what may have to go falls idle");
	turns.firstByte(loader, 2000);
	t.equal(turns.next(2000), undefined, "the slot is in use");
});

t.test(
	"a load waits until Ollama has what was sent just before it",
	async (t) => {
		const turns = loaded();
		const running = turns.arrived(asked("bob"), 0);
		t.equal(turns.next(0), running);
		const loader = turns.arrived(asked("ann", { model: "n" }), 1);
		t.equal(turns.next(1), undefined, "the two could pass each other");
		t.equal(turns.next(turns.wakeMs), loader);
		t.ok(turns.wakeMs > 1);
	},
);

t.test("what was loaded before a load that failed may be gone", async (t) => {
	const turns = loaded();
	const loader = turns.arrived(asked("ann", { model: "n" }), 0);
	t.equal(turns.next(0), loader);
	turns.finished(loader, 500);
	const next = turns.arrived(asked("bob"), 600);
	t.equal(turns.next(600), next);
	t.ok(next.isLoader);
});

t.test(
	"an answer from before the end of a load says nothing of what is loaded",
	async (t) => {
		const turns = loaded();
		const loader = turns.arrived(asked("ann", { model: "n" }), 0);
		turns.next(0);
		turns.firstByte(loader, 500);
		turns.loaded(new Set(["m"]), 600, 400);
		turns.finished(loader, 700);
		const next = turns.arrived(asked("bob", { model: "n" }), 800);
		t.equal(turns.next(800), next);
		t.notOk(next.isLoader);
	},
);

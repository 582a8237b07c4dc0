import t, { type Test } from "tap";
import { Lockout } from "../../src/gate/lockout.ts";

const rule = { max: 3, windowMs: 1_000, lockoutMs: 5_000 };

/** A lockout on a clock in the test's hands. */
function prepare() {
	const lockout = new Lockout();
	let count = 0;
	return {
		lockout,
		/** Shows a wrong key, or one that nobody has shown before. */
		show: (address: string, nowMs: number, key = `key ${++count}`) =>
			lockout.recordFailure(address, [key], rule, nowMs),
		isLocked: (address: string, nowMs: number) =>
			lockout.check(address, nowMs) !== undefined,
	};
}

/** Wrong keys one after the other until the address is locked out. */
function lockOut(
	{ show }: ReturnType<typeof prepare>,
	address: string,
	nowMs: number,
) {
	for (let guess = 0; guess < rule.max; guess += 1) show(address, nowMs);
}

t.test("it counts within its window and ends by itself", async (t) => {
	const { lockout, show } = prepare();
	t.match(show("a", 0), { fresh: 1, lockedOut: false });
	t.match(show("a", 999), { lockedOut: false });
	t.match(show("a", 1_000), { lockedOut: false }, "a new window");
	t.match(show("a", 1_001), { lockedOut: false });
	t.equal(lockout.check("a", 1_001), undefined);
	t.match(show("a", 1_002), { lockedOut: true });
	t.match(lockout.check("a", 1_002), {
		status: 429,
		headers: ["retry-after", "5"],
	});
	t.equal(lockout.check("b", 1_002), undefined);
	t.match(lockout.check("a", 6_001), {
		status: 429,
		headers: ["retry-after", "1"],
	});
	t.equal(lockout.check("a", 6_002), undefined);
	t.match(show("a", 6_002), { lockedOut: false }, "and counts anew");
});

t.test(
	"the same wrong key again is no other guess, for an hour after it",
	async (t) => {
		const { show } = prepare();
		const hourMs = 3_600_000;
		t.match(show("a", 0, "old"), { fresh: 1 });
		let nowMs = 0;
		for (let time = 0; time < 100; time += 1) {
			nowMs += hourMs - 1;
			t.match(show("a", nowMs, "old"), { fresh: 0, lockedOut: false });
		}
		t.match(
			show("b", nowMs, "old"),
			{ fresh: 1 },
			"from another address it is",
		);
		t.match(show("a", nowMs + hourMs, "old"), { fresh: 1 });
	},
);

t.test("of one address 128 wrong keys are remembered", async (t) => {
	const { lockout } = prepare();
	const lenient = { ...rule, max: 1_000 };
	const show = (key: string) =>
		lockout.recordFailure("a", [key], lenient, 0).fresh;
	for (let guess = 0; guess < 128; guess += 1) show(`${guess}`);
	t.equal(show("0"), 0, "the oldest");
	show("one more");
	t.equal(show("0"), 0, "which has come again since");
	t.equal(show("1"), 1, "is not the one that was forgotten");
});

t.test("what there is no room for counts as a guess each time", async (t) => {
	const { lockout } = prepare();
	const lenient = { ...rule, max: 1_000 };
	const keys = Array.from({ length: 100 }, (_, index) => `${index}`);
	for (let address = 0; address < 1_000; address += 1)
		lockout.recordFailure(`${address}`, keys, lenient, 0);
	const show = (nowMs: number) =>
		lockout.recordFailure("late", ["old"], lenient, nowMs).fresh;
	t.equal(show(0), 1);
	t.equal(show(1), 1);
	t.equal(show(3_600_001), 1, "the others are forgotten by now");
	t.equal(show(3_600_002), 0);
});

t.test(
	"past 20,000 addresses the one that came least lately is forgotten",
	async (t) => {
		const all = prepare();
		lockOut(all, "first", 0);
		lockOut(all, "second", 0);
		for (let address = 0; address < 19_998; address += 1)
			all.show(`${address}`, 1);
		t.ok(all.isLocked("first", 1));
		all.show("one more", 1);
		t.notOk(all.isLocked("first", 1));
		t.ok(all.isLocked("second", 1));
	},
);

const v4 = "100.64.0.7";
const v6 = "fd7a:115c:a1e0::7";

t.test("the addresses of a device are locked out together", async (t) => {
	const all = prepare();
	all.show(v4, 0);
	all.lockout.pair([v4, v6], "laptop", rule, 0);
	all.show(v6, 0);
	t.notOk(all.isLocked(v4, 0));
	t.match(all.show(v6, 0), { lockedOut: true });
	t.ok(all.isLocked(v4, 0));
	t.ok(all.isLocked(v6, 0));
	t.strictSame(all.lockout.list(0, 10), [
		{ addresses: [v4, v6], node: "laptop", secondsLeft: 5 },
	]);
	t.equal(all.lockout.lockedCount(0), 1);
	t.match(all.show(v4, 5_001, "again"), { fresh: 1 });
	t.match(all.show(v6, 5_001, "again"), { fresh: 0 }, "nor is it one there");
});

t.test(
	"what was counted of each before they were known to be one counts",
	async (t) => {
		const all = prepare();
		all.show(v4, 0, "old");
		all.show(v6, 0, "old");
		all.show(v6, 0);
		all.lockout.pair([v4, v6], "laptop", rule, 0);
		t.notOk(all.isLocked(v4, 0), "the key that both have shown counts once");
		all.show(v4, 0);
		t.ok(all.isLocked(v6, 0));

		const locked = prepare();
		lockOut(locked, v4, 0);
		locked.lockout.pair([v4, v6], "laptop", rule, 0);
		t.ok(locked.isLocked(v6, 0));

		const split = prepare();
		for (const address of [v4, v6, v4, v6]) split.show(address, 0);
		split.lockout.pair([v4, v6], "laptop", rule, 0);
		t.ok(split.isLocked(v4, 0), "two of each are four");
	},
);

t.test("nobody is locked out by being named with others", async (t) => {
	const all = prepare();
	const many = Array.from({ length: 9 }, (_, index) => `100.64.1.${index}`);
	lockOut(all, "100.64.1.0", 0);
	all.lockout.pair(many, "router", rule, 0);
	t.notOk(all.isLocked("100.64.1.1", 0), "no device has nine addresses");
	all.lockout.pair(["100.64.2.1", "100.64.2.2"], "other", rule, 0);
	t.notOk(all.lockout.isPaired("100.64.2.1"), "of whom nothing was counted");
});

t.test(
	"without tailscaled an IPv6 address that was derived from an IPv4 one is the same device",
	async (t) => {
		const all = prepare();
		lockOut(all, "fd7a:115c:a1e0:ab12:4843:cd96:6258:b240", 0);
		t.ok(all.isLocked("100.88.178.64", 0));
		t.notOk(all.isLocked("100.88.178.65", 0));
		t.notOk(all.isLocked("fd7a:115c:a1e0:ab12:4843:cd96:6258:b241", 0));
		lockOut(all, "100.64.0.5", 0);
		t.ok(all.isLocked("fd7a:115c:a1e0:ab12:4843:cd96:6240:5", 0));
		lockOut(all, "fd7a:115c:a1e0:ab12:4843:cd96:6201:5", 0);
		t.ok(all.isLocked("fd7a:115c:a1e0:ab12:4843:cd96:6201:5", 0));
		t.notOk(all.isLocked("100.1.0.5", 0), "that is nobody's of a tailnet");
	},
);

t.test("one is let in again with all that belongs to it", async (t: Test) => {
	const all = prepare();
	lockOut(all, v4, 0);
	lockOut(all, "100.64.0.8", 0);
	all.lockout.pair([v4, v6], "laptop", rule, 0);
	t.strictSame(all.lockout.unlock("100.64.0.9", 0), []);
	t.strictSame(all.lockout.unlock(v6, 0), [
		{ addresses: [v4, v6], node: "laptop", secondsLeft: 5 },
	]);
	t.notOk(all.isLocked(v4, 0));
	t.ok(all.isLocked("100.64.0.8", 0));
	all.show(v4, 0);
	all.show(v4, 0);
	t.notOk(all.isLocked(v4, 0), "and is counted anew");
	t.match(all.lockout.unlockAll(0), [{ addresses: ["100.64.0.8"] }]);
	t.equal(all.lockout.lockedCount(0), 0);
	t.match(all.show(v4, 0), { lockedOut: true });
});

import t from "tap";
import { type Budget, Budgets } from "../../src/ledger/budgets.ts";

const at = (text: string) => Date.parse(text);
const startMs = at("2030-05-15T10:00:00Z");
const dayBeganMs = at("2030-05-15T00:00:00Z");
const daily = (limits: Budget["limits"]): Budget => ({
	limits,
	per: "day",
	timezone: "UTC",
	// biome-ignore lint/suspicious/noThenProperty: the word of the keys file
	then: "refuse",
});
const requests = (count: number) => ({
	gpuMs: 0,
	tokens: 10 * count,
	requests: count,
});
/** As the rules in force have them. */
const inForce = (budget: Budget) => new Map([["k", { budget }]]);

/** Budgets of which all is known that was used before, and what does things with them at a time. */
function started(budget: Budget) {
	let clockMs = startMs;
	const clock = () => clockMs;
	const budgets = new Budgets({ awakeMs: clock, withSleepMs: clock });
	budgets.hasLedger = true;
	let questions = 0;
	budgets.onUnknown = () => {
		questions += 1;
	};
	const goTo = (nowMs: number) => {
		clockMs = nowMs;
		return nowMs;
	};
	budgets.unrestored(inForce(budget), startMs);
	const span = { sinceMs: dayBeganMs, untilMs: startMs };
	budgets.restore("k", span, requests(1), startMs);
	return {
		budgets,
		goTo,
		questions: () => questions,
		spend: (nowMs: number) =>
			budgets.reserve("k", budget, nowMs).settle(requests(1), goTo(nowMs)),
		look: (nowMs: number) => {
			const { standing, isBlind } = budgets.look("k", budget, nowMs);
			return { used: standing.used.requests, isBlind };
		},
	};
}

t.test(
	"a budget that is taken away and comes back has the ledger asked of all that was used",
	async (t) => {
		const budget = daily({ requests: 10 });
		const { budgets, spend, look, goTo, questions } = started(budget);
		spend(startMs + 1);
		const across = budgets.reserve("k", budget, startMs + 2);
		t.strictSame(look(startMs + 3), { used: 3, isBlind: false });
		budgets.follow(new Map(), startMs + 4);
		across.settle(requests(1), goTo(startMs + 5));
		budgets.follow(inForce(budget), goTo(startMs + 1_000));
		t.equal(questions(), 2);
		t.strictSame(look(startMs + 1_000), { used: 3, isBlind: true });
		spend(startMs + 1_001);
		const { own } = budgets.reserve("k", budget, startMs + 1_002);
		t.equal(own.used.requests, 4, "what gates share never goes back");

		const span = { sinceMs: dayBeganMs, untilMs: startMs + 1_000 };
		t.strictSame(
			budgets.unrestored(inForce(budget), startMs + 1_003),
			new Map([["k", span]]),
		);
		// One of before the start, two of before it was taken away, four meanwhile.
		budgets.restore("k", span, requests(7), startMs + 1_004);
		t.strictSame(look(startMs + 1_005), { used: 9, isBlind: false });
	},
);

t.test("a budget that stays has nothing asked", async (t) => {
	const budget = daily({ requests: 10 });
	const { budgets, spend, look, questions } = started(budget);
	spend(startMs + 1);
	budgets.follow(inForce(budget), startMs + 2);
	t.strictSame(look(startMs + 3), { used: 2, isBlind: false });
	t.equal(questions(), 1);
});

t.test("one that comes back on another day is asked of that day", async (t) => {
	const budget = daily({ requests: 10 });
	const { budgets, spend, look, goTo } = started(budget);
	spend(startMs + 1);
	budgets.follow(new Map(), startMs + 2);
	const midnightMs = at("2030-05-16T00:00:00Z");
	const backMs = goTo(midnightMs + 3_600_000);
	budgets.follow(inForce(budget), backMs);
	t.strictSame(look(backMs), { used: 0, isBlind: true });
	const span = { sinceMs: midnightMs, untilMs: backMs };
	t.strictSame(
		budgets.unrestored(inForce(budget), backMs),
		new Map([["k", span]]),
	);
	budgets.restore("k", span, requests(2), backMs);
	t.strictSame(look(backMs), { used: 2, isBlind: false });
});

t.test(
	"a budget that is raised is told of anew as far as less of it is used",
	async (t) => {
		const { budgets, spend } = started(daily({ requests: 10 }));
		for (let n = 1; n < 10; n += 1) spend(startMs + n);
		const nowMs = startMs + 10;
		const decide = (limit: number) =>
			budgets.decide("k", daily({ requests: limit }), nowMs);
		t.match(decide(10), { kind: "exhausted", isNews: true });
		t.match(decide(11), { isNews: false }, "four fifths of it are used still");
		t.match(decide(10), { kind: "exhausted", isNews: true });
		t.match(decide(10), { kind: "exhausted", isNews: false }, "a mere reload");
		t.match(decide(9), { isNews: false }, "one that is lowered");
		t.match(decide(20), { kind: "granted", isNews: false });
		t.match(decide(12), { kind: "granted", isNews: true }, "low once more");
		t.match(decide(10), { kind: "exhausted", isNews: true });
	},
);

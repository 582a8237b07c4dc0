import fc from "fast-check";
import t from "tap";
import { type Budget, Budgets, isLow } from "../../src/ledger/budgets.ts";
import { type Period, windowOf } from "../../src/ledger/budgetWindow.ts";

const at = (text: string) => Date.parse(text);

t.test("days, weeks and months begin where their zone has them", async (t) => {
	const cases: [Period, string, string, string, string][] = [
		[
			"day",
			"UTC",
			"2030-05-15T10:20:00Z",
			"2030-05-15T00:00:00Z",
			"2030-05-16T00:00:00Z",
		],
		[
			"week",
			"UTC",
			"2030-05-15T10:20:00Z",
			"2030-05-13T00:00:00Z",
			"2030-05-20T00:00:00Z",
		],
		[
			"month",
			"UTC",
			"2030-12-31T23:59:59Z",
			"2030-12-01T00:00:00Z",
			"2031-01-01T00:00:00Z",
		],
		[
			"day",
			"Europe/Berlin",
			"2030-05-15T22:30:00Z",
			"2030-05-15T22:00:00Z",
			"2030-05-16T22:00:00Z",
		],
		// A day of 23 hours, and one of 25.
		[
			"day",
			"Europe/Berlin",
			"2026-03-29T12:00:00Z",
			"2026-03-28T23:00:00Z",
			"2026-03-29T22:00:00Z",
		],
		[
			"day",
			"Europe/Berlin",
			"2026-10-25T12:00:00Z",
			"2026-10-24T22:00:00Z",
			"2026-10-25T23:00:00Z",
		],
		// Midnight is not there: clocks go from 0 to 1.
		[
			"day",
			"America/Santiago",
			"2026-09-06T12:00:00Z",
			"2026-09-06T04:00:00Z",
			"2026-09-07T03:00:00Z",
		],
		[
			"day",
			"Asia/Kathmandu",
			"2030-05-15T18:20:00Z",
			"2030-05-15T18:15:00Z",
			"2030-05-16T18:15:00Z",
		],
	];
	for (const [period, zone, now, start, end] of cases)
		t.same(
			windowOf(period, zone, at(now)),
			{ startMs: at(start), endMs: at(end) },
			`${period} in ${zone} at ${now}`,
		);
});

t.test("windows follow each other without a gap", async (t) => {
	fc.assert(
		fc.property(
			fc.constantFrom<Period>("day", "week", "month"),
			fc.constantFrom(
				...["UTC", "Europe/Berlin", "America/Santiago", "Australia/Lord_Howe"],
				...["Asia/Kathmandu", "America/Havana", "Pacific/Apia", "Africa/Cairo"],
			),
			fc.integer({
				min: at("2015-01-01T00:00Z"),
				max: at("2040-01-01T00:00Z"),
			}),
			(period, zone, nowMs) => {
				const { startMs, endMs } = windowOf(period, zone, nowMs);
				t.ok(startMs <= nowMs && nowMs < endMs, `${period} ${zone} ${nowMs}`);
				t.equal(windowOf(period, zone, startMs).startMs, startMs);
				t.equal(windowOf(period, zone, endMs).startMs, endMs);
			},
		),
		{ numRuns: 200 },
	);
});

const startMs = at("2030-05-15T10:00:00Z");
const daily = (limits: Budget["limits"]): Budget => ({
	limits,
	per: "day",
	timezone: "UTC",
	// biome-ignore lint/suspicious/noThenProperty: the word of the keys file
	then: "refuse",
});

const known = () => new Budgets();

/** One request, and nothing else that counts. */
const cost = { gpuMs: 0, tokens: 0, requests: 1 };

/** Clocks that nobody sets, which go on when a test says so. */
function steadyClocks() {
	let awakeMs = 0;
	let sleptMs = 0;
	return {
		awakeMs: () => awakeMs,
		withSleepMs: () => awakeMs + sleptMs,
		goOn(forMs: number) {
			awakeMs += forMs;
		},
		sleep(forMs: number) {
			sleptMs += forMs;
		},
	};
}

t.test(
	"however many run at once, a budget is passed by one request's cost each at the most",
	async (t) => {
		fc.assert(
			fc.property(
				fc.integer({ min: 1, max: 100_000 }),
				fc.array(
					fc.record({
						cost: fc.integer({ min: 1, max: 5_000 }),
						ends: fc.nat(10),
					}),
					{ maxLength: 200 },
				),
				fc.integer({ min: 1, max: 12 }),
				(limit, requests, width) => {
					const budgets = known();
					const budget = daily({ gpuMs: limit });
					const running: [number, () => void][] = [];
					let used = 0;
					let costliest = 0;
					for (const { cost, ends } of requests) {
						if (running.length >= width) {
							const [one] = running.splice(ends % running.length, 1);
							if (one !== undefined) {
								used += one[0];
								one[1]();
							}
						}
						if (budgets.decide("k", budget, startMs).kind === "exhausted")
							continue;
						costliest = Math.max(costliest, cost);
						const { settle } = budgets.reserve("k", budget, startMs);
						running.push([
							cost,
							() => settle({ gpuMs: cost, tokens: 0, requests: 1 }, startMs),
						]);
					}
					for (const [cost, end] of running) {
						used += cost;
						end();
					}
					t.ok(used <= limit + width * costliest, `${used} of ${limit}`);
				},
			),
			{ numRuns: 100 },
		);
	},
);

/** Ends requests of so many tokens, one after the other. */
function spend(budgets: Budgets, budget: Budget, ...tokens: number[]): void {
	for (const each of tokens)
		budgets
			.reserve("k", budget, startMs)
			.settle({ gpuMs: 0, tokens: each, requests: 1 }, startMs);
}

/** How many are let in, of ten at once. */
function letInOfTen(budgets: Budgets, budget: Budget): number {
	let letIn = 0;
	for (let n = 0; n < 10; n += 1) {
		if (budgets.decide("k", budget, startMs).kind === "exhausted") break;
		budgets.reserve("k", budget, startMs);
		letIn += 1;
	}
	return letIn;
}

t.test(
	"a request reserves what its key's have cost, from the second on",
	async (t) => {
		const budget = daily({ tokens: 400 });
		for (const [ended, letIn] of [
			[[80], 4],
			[[80, 80], 3],
			[[40, 80, 120], 2],
			// The mean of few is their mean; later on the latest count a fifth.
			[[0, 0, 0, 0, 0, 0, 0, 0, 250], 3],
		] as const) {
			const budgets = known();
			spend(budgets, budget, ...ended);
			t.equal(letInOfTen(budgets, budget), letIn, ended.join());
		}
		const budgets = known();
		spend(budgets, budget, 80);
		// What was refused cost nothing, and says nothing of what others cost.
		budgets
			.reserve("k", budget, startMs)
			.settle({ gpuMs: 0, tokens: 0, requests: 0 }, startMs);
		t.equal(letInOfTen(budgets, budget), 4);
	},
);

t.test(
	"a key of which nothing has ended here reserves what its requests cost elsewhere",
	async (t) => {
		const budget = daily({ tokens: 400 });
		const cost = { gpuMs: 0, tokens: 160, requests: 2 };
		const restarted = known();
		const wanted = restarted.unrestored(new Map([["k", { budget }]]), startMs);
		const span = wanted.get("k") ?? { sinceMs: 0, untilMs: 0 };
		restarted.restore("k", span, cost, startMs);
		t.equal(letInOfTen(restarted, budget), 3, "as the ledger tells");
		const second = known();
		second.decide("k", budget, startMs);
		second.hear("k", windowOf("day", "UTC", startMs), cost);
		t.equal(letInOfTen(second, budget), 3, "as another gate tells");
	},
);

t.test("of requests not one too many is let in", async (t) => {
	const budgets = known();
	const budget = daily({ requests: 3 });
	const ends = [];
	while (budgets.decide("k", budget, startMs).kind === "granted")
		ends.push(budgets.reserve("k", budget, startMs));
	t.equal(ends.length, 3);
	// One that was refused later on gives its part back.
	ends[0]?.settle({ gpuMs: 0, tokens: 0, requests: 0 }, startMs);
	ends[0]?.settle({ gpuMs: 0, tokens: 0, requests: 0 }, startMs);
	t.match(budgets.decide("k", budget, startMs), {
		kind: "granted",
		standing: { used: { requests: 2 } },
	});
});

t.test(
	"a request is judged by what others had used with it, not by what they use later",
	async (t) => {
		const budgets = known();
		const budget = daily({ requests: 10 });
		const last = budgets.reserve("k", budget, startMs);
		const { window } = last.own;
		last.others = { gpuMs: 0, tokens: 0, requests: 9 };
		const late = budgets.reserve("k", budget, startMs);
		late.others = { gpuMs: 0, tokens: 0, requests: 10 };
		budgets.hear("k", window, late.others);
		t.equal(budgets.decide("k", budget, startMs, last).kind, "granted");
		t.equal(budgets.decide("k", budget, startMs, late).kind, "exhausted");
	},
);

t.test(
	"a request that has others asked across the turn of its window is judged by the new one",
	async (t) => {
		const budgets = known();
		const budget = daily({ requests: 3 });
		const midnightMs = at("2030-05-16T00:00:00Z");
		const beforeMs = midnightMs - 5;
		budgets.reserve("k", budget, beforeMs).settle(cost, beforeMs);
		budgets.reserve("k", budget, beforeMs).settle(cost, beforeMs);
		const across = budgets.reserve("k", budget, beforeMs);
		across.others = { gpuMs: 0, tokens: 0, requests: 1 };
		budgets.hear("k", across.own.window, across.others);
		t.match(
			budgets.decide("k", budget, midnightMs, across),
			{
				kind: "granted",
				isNews: false,
				standing: {
					used: { requests: 0 },
					resetsAtMs: midnightMs + 86_400_000,
				},
			},
			"its own part is not in its way",
		);
		t.match(budgets.look("k", budget, midnightMs, across).standing.used, {
			requests: 1,
		});
		across.settle(cost, midnightMs);
		budgets.reserve("k", budget, midnightMs).settle(cost, midnightMs);
		budgets.reserve("k", budget, midnightMs).settle(cost, midnightMs);
		t.match(
			budgets.decide("k", budget, midnightMs),
			{ kind: "exhausted", isNews: true },
			"the owner is told of the new one's true end",
		);
	},
);

t.test("a new window begins with nothing used", async (t) => {
	const clocks = steadyClocks();
	const budgets = new Budgets(clocks);
	const budget = daily({ tokens: 100 });
	const spend = (tokens: number, nowMs: number) =>
		budgets
			.reserve("k", budget, nowMs)
			.settle({ gpuMs: 5, tokens, requests: 1 }, nowMs);
	spend(120, startMs);
	const now = budgets.decide("k", budget, startMs);
	t.match(now, { kind: "exhausted", isNews: true });
	t.ok(isLow(now.standing));
	t.equal(budgets.decide("k", budget, startMs).isNews, false);
	const { resetsAtMs } = now.standing;
	t.equal(resetsAtMs, at("2030-05-16T00:00:00Z"));
	clocks.goOn(resetsAtMs - startMs);
	const later = budgets.decide("k", budget, resetsAtMs);
	t.equal(later.kind, "granted");
	t.notOk(isLow(later.standing));
	t.equal(later.standing.used.tokens, 0);
	spend(85, resetsAtMs);
	t.match(budgets.decide("k", budget, resetsAtMs), { isNews: true });
});

t.test(
	"what was used before this process counts once it is told, and once",
	async (t) => {
		const clocks = steadyClocks();
		const budgets = new Budgets(clocks);
		const budget = daily({ tokens: 100 });
		const span = { sinceMs: at("2030-05-15T00:00:00Z"), untilMs: startMs };
		t.equal(budgets.decide("k", budget, startMs).isBlind, true);
		t.strictSame(
			budgets.unrestored(new Map([["k", { budget }]]), startMs),
			new Map([["k", span]]),
		);
		const told = { gpuMs: 0, tokens: 90, requests: 4 };
		for (const [other, what] of [
			[{ ...span, sinceMs: span.sinceMs - 86_400_000 }, "of another day"],
			[{ ...span, untilMs: span.untilMs - 1 }, "of before another edit"],
		] as const) {
			budgets.restore("k", other, told, startMs);
			t.equal(budgets.decide("k", budget, startMs).isBlind, true, what);
		}
		for (let n = 0; n < 2; n += 1) budgets.restore("k", span, told, startMs);
		t.match(budgets.decide("k", budget, startMs), {
			isBlind: false,
			isNews: true,
			standing: { used: { tokens: 90 } },
		});
		const nextMs = at("2030-05-16T00:00:00Z");
		clocks.goOn(nextMs - startMs);
		t.equal(
			budgets.decide("k", budget, nextMs).isBlind,
			false,
			"the next day is all this process's",
		);
	},
);

for (const [what, edited] of [
	["period", { per: "week" }],
	["time zone", { timezone: "Europe/Berlin" }],
] as const)
	t.test(
		`an edit of the ${what} counts what ends from then on, and asks for the rest`,
		async (t) => {
			const clocks = steadyClocks();
			const budgets = new Budgets(clocks);
			let questions = 0;
			budgets.onUnknown = () => {
				questions += 1;
			};
			const first = daily({ requests: 5 });
			const begunMs = at("2030-05-10T10:00:00Z");
			budgets.decide("k", first, begunMs);
			clocks.goOn(startMs - begunMs);
			const spend = (budget: Budget, nowMs: number) =>
				budgets.reserve("k", budget, nowMs);
			spend(first, startMs).settle(cost, startMs);
			const across = spend(first, startMs);
			t.equal(questions, 1, "of the day in which it began");

			const second = { ...first, ...edited };
			const editedMs = startMs + 5;
			const { sinceMs, untilMs } = budgets
				.unrestored(new Map([["k", { budget: second }]]), editedMs)
				.get("k") ?? { sinceMs: 0, untilMs: 0 };
			t.equal(sinceMs, windowOf(second.per, second.timezone, editedMs).startMs);
			t.equal(untilMs, editedMs);
			t.equal(questions, 2);
			across.settle(cost, editedMs + 1);
			t.match(budgets.decide("k", second, editedMs + 2), {
				isBlind: true,
				standing: { used: { requests: 1 } },
			});
			budgets.restore("k", { sinceMs, untilMs }, cost, editedMs + 3);
			t.match(budgets.decide("k", second, editedMs + 4), {
				isBlind: false,
				standing: { used: { requests: 2 } },
			});
		},
	);

t.test(
	"a clock that is put back into an earlier window has the ledger asked of it",
	async (t) => {
		const clocks = steadyClocks();
		const budgets = new Budgets(clocks);
		const budget = daily({ requests: 1 });
		const midnightMs = at("2030-05-16T00:00:00Z");
		const begunMs = at("2030-05-10T10:00:00Z");
		budgets.decide("k", budget, begunMs);
		clocks.goOn(midnightMs - begunMs);
		const spend = (nowMs: number) =>
			budgets.reserve("k", budget, nowMs).settle(cost, nowMs);
		spend(midnightMs - 1_000);
		t.equal(budgets.decide("k", budget, midnightMs - 500).kind, "exhausted");
		t.equal(budgets.decide("k", budget, midnightMs).kind, "granted");
		let questions = 0;
		budgets.onUnknown = () => {
			questions += 1;
		};
		const backMs = midnightMs - 100;
		t.equal(budgets.decide("k", budget, backMs).isBlind, true);
		t.equal(questions, 1);
		const wanted = budgets.unrestored(new Map([["k", { budget }]]), backMs);
		const span = { sinceMs: midnightMs - 86_400_000, untilMs: backMs };
		t.strictSame(wanted, new Map([["k", span]]));
		budgets.restore("k", span, cost, backMs);
		t.match(budgets.decide("k", budget, backMs), {
			kind: "exhausted",
			isBlind: false,
		});
	},
);

const minuteMs = 60_000;

t.test(
	"where a ledger is to tell, what other gates use makes nothing of before known",
	async (t) => {
		const budgets = new Budgets();
		budgets.hasLedger = true;
		budgets.sharedSinceMs = 0;
		const budget = daily({ requests: 5 });
		const window = windowOf("day", "UTC", startMs);
		budgets.decide("k", budget, startMs);
		budgets.hear("k", window, { ...cost, requests: 3 });
		t.match(budgets.decide("k", budget, startMs), {
			isBlind: true,
			standing: { used: { requests: 3 } },
		});
		const span = { sinceMs: window.startMs, untilMs: startMs };
		budgets.restore("k", span, cost, startMs);
		t.equal(budgets.decide("k", budget, startMs).isBlind, false);
	},
);

t.test(
	"without a ledger other gates tell what was used, if what they share was there when the day began",
	async (t) => {
		const budget = daily({ requests: 5 });
		const window = windowOf("day", "UTC", startMs);
		for (const [what, sinceMs, used, isBlind] of [
			["it was, and a gate used some", window.startMs, 3, false],
			["it was, and nobody used any", window.startMs - 1, 0, false],
			["it was emptied since", window.startMs + 1, 3, true],
			["it does not say", undefined, 3, true],
		] as const) {
			const budgets = new Budgets();
			if (sinceMs !== undefined) budgets.sharedSinceMs = sinceMs;
			t.equal(budgets.decide("k", budget, startMs).isBlind, true, what);
			budgets.hear("k", window, { ...cost, requests: used });
			t.equal(budgets.decide("k", budget, startMs).isBlind, isBlind, what);
			// What a gate was told it goes on to know.
			budgets.sharedSinceMs = startMs;
			budgets.hear("k", window, { ...cost, requests: used });
			t.equal(budgets.decide("k", budget, startMs).isBlind, isBlind, what);
		}
	},
);

t.test(
	"a gate that starts with a clock of long ago asks the ledger once it is set",
	async (t) => {
		const clocks = steadyClocks();
		const budgets = new Budgets(clocks);
		budgets.hasLedger = true;
		const budget = daily({ requests: 2 });
		const wrongMs = at("2020-01-01T00:00:30Z");
		budgets.reserve("k", budget, wrongMs).settle(cost, wrongMs);
		let questions = 0;
		budgets.onUnknown = () => {
			questions += 1;
		};
		clocks.goOn(minuteMs);
		t.match(budgets.decide("k", budget, startMs), {
			isBlind: true,
			standing: { used: { requests: 0 } },
		});
		t.equal(questions, 1);
		const span = {
			sinceMs: at("2030-05-15T00:00:00Z"),
			untilMs: startMs - minuteMs,
		};
		t.strictSame(
			budgets.unrestored(new Map([["k", { budget }]]), startMs),
			new Map([["k", span]]),
			"of what was before it started, by the right clock",
		);
		budgets.restore("k", span, { ...cost, requests: 2 }, startMs);
		t.match(budgets.decide("k", budget, startMs), {
			kind: "exhausted",
			isBlind: false,
		});
	},
);

t.test(
	"a clock that was behind by less than a day has the ledger asked of all of it",
	async (t) => {
		const clocks = steadyClocks();
		const budgets = new Budgets(clocks);
		budgets.hasLedger = true;
		const budget = daily({ requests: 5 });
		const wrongMs = startMs - 60 * minuteMs;
		const keys = new Map([["k", { budget }]]);
		const sinceMs = at("2030-05-15T00:00:00Z");
		budgets.unrestored(keys, wrongMs);
		budgets.restore("k", { sinceMs, untilMs: wrongMs }, cost, wrongMs);
		budgets.reserve("k", budget, wrongMs).settle(cost, wrongMs);
		const across = budgets.reserve("k", budget, wrongMs);
		t.match(budgets.decide("k", budget, startMs, across), {
			isBlind: true,
			standing: { used: { requests: 0 } },
		});
		const span = { sinceMs, untilMs: startMs };
		t.strictSame(budgets.unrestored(keys, startMs), new Map([["k", span]]));
		across.settle(cost, startMs);
		// Two of before the restart, one of which was too late for the first question, and one of its own.
		budgets.restore("k", span, { ...cost, requests: 3 }, startMs);
		t.match(budgets.decide("k", budget, startMs), {
			isBlind: false,
			standing: { used: { requests: 4 } },
		});
	},
);

t.test("without a ledger a clock that is set forgets nothing", async (t) => {
	const clocks = steadyClocks();
	const budgets = new Budgets(clocks);
	const budget = daily({ requests: 1 });
	// By its clock it has counted since before the day began.
	const wrongMs = at("2030-05-14T23:59:50Z");
	budgets.decide("k", budget, wrongMs);
	clocks.goOn(minuteMs);
	const nextMs = wrongMs + minuteMs;
	budgets.reserve("k", budget, nextMs).settle(cost, nextMs);
	t.match(budgets.decide("k", budget, nextMs), {
		kind: "exhausted",
		isBlind: false,
	});
	t.match(budgets.decide("k", budget, startMs), {
		kind: "exhausted",
		isBlind: true,
		isNews: false,
	});
});

for (const [what, pass] of [
	["was asleep at midnight", (clocks) => clocks.sleep(14 * 60 * minuteMs)],
	[
		"has its clock set by a little",
		(clocks) => clocks.goOn(840 * minuteMs - 50_000),
	],
] as [string, (clocks: ReturnType<typeof steadyClocks>) => void][])
	t.test(
		`the next day of a machine that ${what} is all this process's`,
		async (t) => {
			const clocks = steadyClocks();
			const budgets = new Budgets(clocks);
			const budget = daily({ requests: 1 });
			budgets.decide("k", budget, startMs);
			pass(clocks);
			const nextMs = at("2030-05-16T00:00:00Z");
			t.equal(budgets.decide("k", budget, nextMs).isBlind, false);
		},
	);

t.test(
	"a clock that was set forward late leaves known what was counted all the time",
	async (t) => {
		const clocks = steadyClocks();
		const budgets = new Budgets(clocks);
		budgets.hasLedger = true;
		const budget = daily({ requests: 2 });
		budgets.decide("k", budget, at("2030-05-10T10:00:00Z"));
		clocks.goOn(startMs - at("2030-05-10T10:00:00Z"));
		budgets.reserve("k", budget, startMs).settle(cost, startMs);
		const setMs = startMs + 5 * minuteMs;
		t.match(budgets.decide("k", budget, setMs), {
			isBlind: false,
			standing: { used: { requests: 1 } },
		});
		const nextMs = at("2030-05-16T00:00:05Z");
		t.equal(budgets.decide("k", budget, nextMs).isBlind, false);
	},
);

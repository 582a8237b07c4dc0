import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import {
	type HostEvent,
	nextHealth,
	silenceToDownMs,
	unknownHealth,
} from "../../src/upstream/hosts/health.ts";

const event: fc.Arbitrary<HostEvent> = fc.oneof(
	fc.constant<HostEvent>({ kind: "answered" }),
	fc.constant<HostEvent>({ kind: "served" }),
	fc.constant<HostEvent>({ kind: "silent" }),
	fc.constant<HostEvent>({ kind: "unreachable", why: "ECONNREFUSED" }),
	fc.constant<HostEvent>({ kind: "died", why: "ECONNRESET" }),
	fc.constant<HostEvent>({ kind: "nonsense", why: "no version" }),
);
const timed = fc.tuple(event, fc.integer({ min: 0, max: 90_000 }));
const events = fc.array(timed, { maxLength: 60 });
const answered: HostEvent = { kind: "answered" };
const unreachable: HostEvent = { kind: "unreachable", why: "ECONNREFUSED" };

/** The states that a list of events leads through, from that of an unknown host. */
function states(...list: HostEvent[]): string[] {
	let health = unknownHealth(0);
	return list.map((one, at) => {
		health = nextHealth(health, one, at);
		return health.state;
	});
}

t.test("a host goes up, suspect, down, half-open and up again", async (t) => {
	t.strictSame(
		states(answered, unreachable, unreachable, unreachable, answered, answered),
		["up", "suspect", "down", "down", "half-open", "up"],
	);
});

t.test("a half-open host is up by one request that it answers", async (t) => {
	const served: HostEvent = { kind: "served" };
	t.strictSame(states(unreachable, unreachable, answered, served), [
		"suspect",
		"down",
		"half-open",
		"up",
	]);
});

t.test("a half-open host is down by one failure", async (t) => {
	for (const bad of [
		unreachable,
		{ kind: "died", why: "" },
		{ kind: "silent" },
	] as HostEvent[])
		t.equal(states(unreachable, unreachable, answered, bad).at(-1), "down");
});

t.test("requests that end badly take no host from the others", async (t) => {
	const died: HostEvent = { kind: "died", why: "ECONNRESET" };
	t.strictSame(
		new Set(states(answered, died, died, died, died).slice(1)),
		new Set(["suspect"]),
	);
});

t.test("a slow host is not a dead one", async (t) => {
	let health = nextHealth(unknownHealth(0), answered, 0);
	health = nextHealth(health, { kind: "silent" }, 3_000);
	health = nextHealth(health, { kind: "silent" }, silenceToDownMs);
	t.equal(health.state, "suspect");
	const alive = nextHealth(health, { kind: "served" }, silenceToDownMs + 1);
	t.equal(
		nextHealth(alive, { kind: "silent" }, silenceToDownMs + 5_000).state,
		"suspect",
	);
	health = nextHealth(health, { kind: "silent" }, silenceToDownMs + 3_000);
	t.equal(health.state, "down");
});

t.test("whatever happens", async (t) => {
	fc.assert(
		fc.property(events, (list) => {
			let nowMs = 0;
			let health = unknownHealth(nowMs);
			for (const [one, afterMs] of list) {
				const before = health;
				nowMs += afterMs;
				health = nextHealth(before, one, nowMs);
				const isAnswer = one.kind === "answered" || one.kind === "served";
				// It comes up by an answer alone, and from below by way of half-open.
				if (health.state === "up") {
					assert.ok(isAnswer);
					assert.notEqual(before.state, "down");
					assert.equal(health.why, undefined);
				} else assert.notEqual(health.why, undefined);
				if (health.state === "half-open")
					assert.ok(before.state === "down" || before.state === "half-open");
				// Nobody is down for one failure, nor for a short silence, nor for a request's end.
				if (health.state === "down" && before.state === "up")
					assert.equal(one.kind, "nonsense");
				if (one.kind === "nonsense") assert.equal(health.state, "down");
				if (isAnswer) assert.notEqual(health.state, "down");
				else if (before.state !== "suspect")
					assert.notEqual(health.state, "up");
				assert.ok(health.sinceMs <= nowMs);
				if (health.state === before.state)
					assert.equal(health.sinceMs, before.sinceMs);
				else assert.equal(health.sinceMs, nowMs);
			}
			// Two answers, and it is up, whatever it was.
			let end = nextHealth(health, answered, nowMs);
			end = nextHealth(end, answered, nowMs);
			assert.equal(end.state, "up");
			// Two refused connections, and it is down.
			end = nextHealth(end, unreachable, nowMs);
			end = nextHealth(end, unreachable, nowMs);
			assert.equal(end.state, "down");
		}),
		{ numRuns: 2_000 },
	);
	t.pass();
});

import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { CommonQueue } from "../../src/queue/common.ts";
import type { Place } from "../../src/queue/model.ts";
import { Turns } from "../../src/queue/turns.ts";
import { asked } from "./simulation.ts";

/** Who comes to one of several hosts, while others have been busy at theirs. */

interface Running {
	readonly place: Place;
	readonly endsMs: number;
}

/** Hosts in virtual time; each user asks one of them, again as soon as it has its answer. */
class Hosts {
	nowMs = 0;
	readonly #hosts: readonly { turns: Turns; running: Set<Running> }[];
	readonly #served = new Map<string, number>();
	readonly #users = new Map<string, { at: number; lengthMs: number }>();

	constructor(count: number, slots: number) {
		const { fairness } = new CommonQueue();
		const settings = {
			parallel: slots,
			maxWaitMs: { interactive: 1e9, normal: 1e9, batch: 1e9 },
			turnFactor: 8,
		};
		this.#hosts = Array.from({ length: count }, () => {
			const turns = new Turns(settings, fairness);
			turns.loaded(undefined, 0);
			return { turns, running: new Set<Running>() };
		});
	}

	servedMs(user: string): number {
		return this.#served.get(user) ?? 0;
	}

	/** So many more requests of a user are open from now on, each as long as the first. */
	opens(user: string, more: number, at = 0, lengthMs = 1): void {
		if (!this.#users.has(user)) this.#users.set(user, { at, lengthMs });
		for (let count = 0; count < more; count += 1) this.#ask(user);
	}

	runUntil(endMs: number): void {
		for (;;) {
			let next: { at: number; one: Running } | undefined;
			for (const [at, { running }] of this.#hosts.entries())
				for (const one of running)
					if (one.endsMs < (next?.one.endsMs ?? endMs)) next = { at, one };
			if (next === undefined) break;
			this.#end(next.at, next.one);
		}
		this.nowMs = endMs;
	}

	#ask(user: string): void {
		const { at = 0 } = this.#users.get(user) ?? {};
		const turns = this.#hosts[at]?.turns;
		assert.ok(turns !== undefined);
		const place = turns.pass(asked(user), this.nowMs);
		if (place !== undefined) this.#run(at, place);
		else turns.arrived(asked(user), this.nowMs);
		this.#pump(at);
	}

	#run(at: number, place: Place): void {
		const host = this.#hosts[at];
		const { lengthMs = 1 } = this.#users.get(place.asked.user) ?? {};
		host?.turns.firstByte(place, this.nowMs);
		host?.running.add({ place, endsMs: this.nowMs + lengthMs });
	}

	#pump(at: number): void {
		for (;;) {
			const place = this.#hosts[at]?.turns.next(this.nowMs);
			if (place === undefined) return;
			this.#run(at, place);
		}
	}

	#end(at: number, one: Running): void {
		const host = this.#hosts[at];
		this.nowMs = one.endsMs;
		host?.running.delete(one);
		const { user } = one.place.asked;
		const ms = host?.turns.finished(one.place, this.nowMs) ?? 0;
		this.#served.set(user, this.servedMs(user) + ms);
		this.#pump(at);
		this.#ask(user);
	}
}

const hourMs = 3_600_000;
const longMs = 900_000;

t.test(
	"one who is alone at a host does not put off who comes to another",
	async (t) => {
		const hosts = new Hosts(2, 1);
		hosts.opens("alone", 1, 0, 10_000);
		for (const user of ["b", "c"]) hosts.opens(user, 2, 1, 10_000);
		hosts.runUntil(hourMs);
		const before = ["b", "c"].map((user) => hosts.servedMs(user));
		hosts.opens("comes", 2, 1, 10_000);
		hosts.runUntil(2 * hourMs);
		const since = ["b", "c"].map(
			(user, index) => hosts.servedMs(user) - (before[index] ?? 0),
		);
		for (const ms of [hosts.servedMs("comes"), ...since])
			t.ok(Math.abs(ms - hourMs / 3) <= 20_000, `${ms}`);
	},
);

t.test(
	"who comes to one of several hosts goes behind nobody there by more than a bound",
	async (t) => {
		const user = fc.record({
			at: fc.nat({ max: 2 }),
			lengthMs: fc.integer({ min: 100, max: 10_000 }),
			open: fc.integer({ min: 1, max: 6 }),
			comesMs: fc.nat({ max: 30_000 }),
		});
		fc.assert(
			fc.property(
				fc.integer({ min: 1, max: 3 }),
				fc.integer({ min: 1, max: 3 }),
				fc.array(user, { minLength: 1, maxLength: 6 }),
				(count, slots, users) => {
					const hosts = new Hosts(count, slots);
					const all = users
						.map((one, index) => ({ ...one, name: `${index}` }))
						.sort((a, b) => a.comesMs - b.comesMs);
					for (const { name, open, at, lengthMs, comesMs } of all) {
						hosts.runUntil(comesMs);
						hosts.opens(name, open, at % count, lengthMs);
					}
					const [{ at, lengthMs } = { at: 0, lengthMs: 1 }] = users;
					hosts.runUntil(longMs);
					hosts.opens("comes", slots + 1, at % count, lengthMs);
					// Those who are there want more from now on, so that they wait too.
					const there = all.filter((one) => one.at % count === at % count);
					for (const { name } of there) hosts.opens(name, slots + 1);
					const before = there.map(({ name }) => hosts.servedMs(name));
					const longestMs = Math.max(
						1000,
						...users.map(({ lengthMs }) => lengthMs),
					);
					const mostMs = 2 * slots * count * longestMs;
					for (let ms = 0; ms < 300_000; ms += 20_000) {
						hosts.runUntil(longMs + ms);
						for (const [index, { name }] of there.entries()) {
							const since = hosts.servedMs(name) - (before[index] ?? 0);
							const behindMs = since - hosts.servedMs("comes");
							assert.ok(behindMs <= mostMs, `${behindMs} of ${mostMs} ms`);
						}
					}
				},
			),
			{ numRuns: 30 },
		);
		t.pass();
	},
);

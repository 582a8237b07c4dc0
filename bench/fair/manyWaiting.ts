import type { Place } from "../../src/queue/model.ts";
import { Turns } from "../../src/queue/turns.ts";
import { randomFrom } from "../queue/clock.ts";
import { fixed, quantile, type Section, whole } from "../report.ts";

/**
 * What ten thousand requests that wait take in the part of the queue that
 * decides, and how long it takes to choose the next: a program of its own, run
 * with --expose-gc. It prints a section.
 */

const count = 10_000;
const models = 3;
const choices = 20_000;

interface Kind {
	readonly name: string;
	readonly users: number;
}

const kinds: readonly Kind[] = [
	{ name: "of one user", users: 1 },
	{ name: "of 100 users", users: 100 },
	{ name: "of 10,000 users", users: count },
];

function collectGarbage(): void {
	const { gc } = globalThis as { gc?: () => void };
	if (gc === undefined) throw new Error("this takes node --expose-gc");
	gc();
	gc();
}

/** What the heap holds that is in use, in bytes. */
function heldBytes(): number {
	collectGarbage();
	return process.memoryUsage().heapUsed;
}

function measure({ users }: Kind) {
	const turns = new Turns({
		parallel: 4,
		maxWaitMs: { interactive: 120_000, normal: 600_000, batch: 21_600_000 },
		turnFactor: 8,
	});
	const random = randomFrom(1);
	const arrive = (index: number, nowMs: number) =>
		turns.arrived(
			{
				// A name of its own, as one that was read from a request would be.
				user: `user-${index % users}-${"x".repeat(8)}`,
				share: 1,
				priority: "normal",
				model: `sha256:${index % models}`,
				isStream: true,
			},
			nowMs,
		);
	turns.loaded(
		new Set(Array.from({ length: models }, (_, index) => `sha256:${index}`)),
		0,
	);
	const places: Place[] = new Array(count);
	const before = heldBytes();
	for (let index = 0; index < count; index++) places[index] = arrive(index, 0);
	const bytes = (heldBytes() - before) / count;
	let nowMs = 0;
	let arrived = count;
	const running: Place[] = [];
	const microseconds: number[] = [];
	for (let choice = 0; choice < choices; choice++) {
		nowMs += 1;
		const since = performance.now();
		const place = turns.next(nowMs);
		microseconds.push((performance.now() - since) * 1000);
		if (place === undefined) {
			// Of those that run a random one ends, and its user asks again.
			const at = Math.floor(random() * running.length);
			const [over] = running.splice(at, 1);
			if (over === undefined) throw new Error("nothing runs and nothing goes");
			turns.finished(over, nowMs);
			arrive(arrived++, nowMs);
			continue;
		}
		turns.firstByte(place, nowMs);
		running.push(place);
	}
	return {
		memory: bytes / 1000,
		choose: quantile(microseconds, 0.5),
		choose99: quantile(microseconds, 0.99),
	};
}

// Once for the compiler.
for (const kind of kinds) measure(kind);
const measured = kinds.map((kind) => ({ kind, ...measure(kind) }));
const worst = (figure: "memory" | "choose" | "choose99") =>
	Math.max(...measured.map((one) => one[figure]));
const section: Section = {
	name: `queue, ${count} wait`,
	title: `${whole(count)} requests that wait`,
	notes: [
		"the part of the queue that decides, by itself: memory in V8's heap, without the connection that each request has",
		`${models} models that are loaded, 4 requests at once each; ${whole(choices)} choices, while as many are kept waiting`,
	],
	head: ["", "KB each", "choosing the next p50, µs", "p99"],
	rows: measured.map(({ kind, memory, choose, choose99 }) => [
		...[kind.name, fixed(memory, 2), fixed(choose, 2), fixed(choose99, 2)],
	]),
	figures: {
		gate: {
			memory: worst("memory"),
			choose: worst("choose"),
			choose99: worst("choose99"),
		},
	},
	data: measured,
};
process.stdout.write(JSON.stringify(section));

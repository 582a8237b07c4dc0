import { setImmediate as turn } from "node:timers/promises";
import t from "tap";
import { JudgedBodies } from "../../src/gate/judgedBodies.ts";

/** Resolves once the condition holds; the turns of large bodies come by and by. */
async function until(holds: () => boolean): Promise<void> {
	while (!holds()) await turn();
}

t.test("keys take turns, however many bodies one has", async (t) => {
	const bodies = new JudgedBodies();
	const order: string[] = [];
	for (const [key, body] of [
		["greedy", "1"],
		["greedy", "2"],
		["greedy", "3"],
		["modest", "1"],
	] as const)
		bodies.inTurn(
			key,
			64 * 1024,
			() => {},
			() => order.push(`${key} ${body}`),
		);
	await until(() => order.length === 4);
	t.same(order, ["greedy 1", "modest 1", "greedy 2", "greedy 3"]);
});

t.test(
	"a small piece owes the event loop no more than its share",
	async (t) => {
		const bodies = new JudgedBodies();
		const rests = t.capture(globalThis, "setTimeout", globalThis.setTimeout);
		let left = 2_000;
		const next = () => {
			left -= 1;
			if (left > 0) bodies.inTurn("key", 64, () => {}, next);
		};
		next();
		await until(() => left === 0);
		t.ok(rests().length < 200, "a timer for every piece would take seconds");
	},
);

t.test("a large piece leaves the event loop to others", async (t) => {
	const bodies = new JudgedBodies();
	const rests = t.capture(globalThis, "setTimeout", globalThis.setTimeout);
	let left = 20;
	const next = () => {
		left -= 1;
		if (left > 0) bodies.inTurn("key", 64 * 1024, () => {}, next);
	};
	next();
	await until(() => left === 0);
	t.equal(rests().length, 19);
});

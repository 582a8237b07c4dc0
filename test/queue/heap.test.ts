import assert from "node:assert/strict";
import fc from "fast-check";
import t from "tap";
import { Heap } from "../../src/queue/heap.ts";

interface Number {
	heapIndex: number;
	value: number;
}
const newHeap = () => new Heap<Number>((a, b) => a.value < b.value);
const member = (value: number): Number => ({ heapIndex: -1, value });

t.test("the least member is first", async (t) => {
	const heap = newHeap();
	for (const value of [5, 3, 8, 1]) heap.add(member(value));
	t.equal(heap.first?.value, 1);
	t.equal(heap.size, 4);
});

t.test("a member is in it once, however often it is added", async (t) => {
	const heap = newHeap();
	const one = member(1);
	heap.add(one);
	heap.add(one);
	t.equal(heap.size, 1);
});

t.test("to take out what is not in it changes nothing", async (t) => {
	const heap = newHeap();
	heap.add(member(1));
	heap.delete(member(0));
	t.equal(heap.size, 1);
});

t.test("whatever is added, moved and taken out, it is in order", async () => {
	const step = fc.record({
		kind: fc.constantFrom("add", "delete", "move"),
		which: fc.nat({ max: 30 }),
		value: fc.nat({ max: 20 }),
	});
	fc.assert(
		fc.property(fc.array(step, { maxLength: 200 }), (steps) => {
			const heap = newHeap();
			const members = Array.from({ length: 31 }, () => member(0));
			const inside = new Set<Number>();
			for (const { kind, which, value } of steps) {
				const one = members[which];
				assert.ok(one !== undefined);
				if (kind === "delete") {
					heap.delete(one);
					inside.delete(one);
				} else if (kind === "move" && inside.has(one)) {
					one.value = value;
					heap.moved(one);
				} else if (kind === "add" && !inside.has(one)) {
					one.value = value;
					heap.add(one);
					inside.add(one);
				}
				assert.equal(heap.size, inside.size);
				assert.deepEqual(new Set(heap), inside);
				for (const other of members)
					assert.equal(other.heapIndex !== -1, inside.has(other));
				const least = Math.min(...[...inside].map((some) => some.value));
				if (inside.size > 0) assert.equal(heap.first?.value, least);
			}
			let before = -1;
			for (let { first } = heap; first !== undefined; first = heap.first) {
				assert.ok(first.value >= before);
				before = first.value;
				heap.delete(first);
			}
		}),
	);
});

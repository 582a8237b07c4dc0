import { getHeapStatistics } from "node:v8";
import t from "tap";
import { collectGarbage, SpareMemory } from "../../src/gate/spareMemory.ts";

const mebibyte = 2 ** 20;

/** A heap that grows when told to, and is clear at 20 MiB. */
function heap() {
	const state = { mib: 20, collections: 0, load: 0.01 };
	const memory = new SpareMemory(
		0,
		() => state.mib * mebibyte,
		() => {
			state.mib = 20;
			state.collections += 1;
		},
		() => state.load,
	);
	/** Has it look four times a second, from one time to another. */
	const pass = (fromS: number, toS: number, hasStreams = false) => {
		for (let ms = 1_000 * fromS; ms < 1_000 * toS; ms += 250)
			memory.sweep(ms, hasStreams);
	};
	return { state, pass };
}

t.test("memory is given back once nothing was done for ten seconds", (t) => {
	const { state, pass } = heap();
	pass(0, 5, true);
	state.mib = 60;
	pass(5, 14);
	t.equal(state.collections, 0);
	pass(14, 16);
	t.equal(state.collections, 1);
	pass(16, 600);
	t.equal(state.collections, 1, "and not again until there is more");
	state.mib = 60;
	pass(600, 601);
	t.equal(state.collections, 2);
	t.end();
});

t.test("no running stream feels it", (t) => {
	const { state, pass } = heap();
	state.mib = 60;
	pass(0, 3_600, true);
	t.equal(state.collections, 0);
	t.end();
});

t.test("a heap that has hardly grown is left alone", (t) => {
	const { state, pass } = heap();
	state.mib = 27;
	pass(0, 3_600);
	t.equal(state.collections, 0);
	t.end();
});

t.test("requests that make no stream are work, too", (t) => {
	const { state, pass } = heap();
	state.mib = 60;
	state.load = 0.3;
	pass(0, 3_600);
	t.equal(state.collections, 0);
	t.end();
});

t.test("what is garbage goes back to the system", (t) => {
	let kept: object[] | undefined = Array.from({ length: 500_000 }, (_, n) => ({
		n,
	}));
	collectGarbage();
	const before = getHeapStatistics().total_heap_size;
	t.ok(kept.length > 0);
	kept = undefined;
	collectGarbage();
	t.ok(
		getHeapStatistics().total_heap_size < before - 10 * mebibyte,
		"the heap is smaller",
	);
	t.equal("gc" in globalThis, false);
	t.end();
});

import zlib, { zstdCompressSync } from "node:zlib";
import t, { type Test } from "tap";
import { JudgedBodies } from "../../src/gate/judgedBodies.ts";
import { Unpackings } from "../../src/gate/unpackings.ts";

const body = zstdCompressSync(Buffer.alloc(1 << 20));

/** All that is unpacked is held behind its first large piece until it is let go. */
class Held extends JudgedBodies {
	readonly go = new Map<string, () => void>();

	override inTurn(
		key: string,
		_sizeBytes: number,
		judge: () => void,
		go: () => void,
	): void {
		judge();
		this.go.set(key, go);
	}

	/** Ends what is under way of a key. */
	async end(key: string, under: Promise<unknown>): Promise<void> {
		let isOver = false;
		const over = under.then(() => {
			isOver = true;
		});
		while (!isOver) {
			this.go.get(key)?.();
			await new Promise(setImmediate);
		}
		await over;
	}
}

function start(t: Test) {
	const bodies = new Held();
	const unpackings = new Unpackings(bodies);
	const began = t.capture(
		zlib,
		"createZstdDecompress",
		zlib.createZstdDecompress,
	);
	let count = 0;
	return {
		bodies,
		began: () => {
			count += began().length;
			return count;
		},
		unpack: (key: string, signal = new AbortController().signal) =>
			unpackings.unpack(key, body, () => true, signal),
	};
}

t.test("of a key one is unpacked at a time, and four in all", async (t) => {
	const { bodies, began, unpack } = start(t);
	const firsts = new Map(["a", "b", "c", "d"].map((key) => [key, unpack(key)]));
	t.equal(began(), 4);
	const seconds = new Map(["a", "e", "b"].map((key) => [key, unpack(key)]));
	t.equal(began(), 4);
	const end = (key: string) =>
		bodies.end(key, firsts.get(key) ?? Promise.reject(new Error(key)));
	await end("b");
	t.equal(began(), 5, "a place for another key");
	await end("a");
	t.equal(began(), 6, "and for the one that has waited longest");
	for (const key of ["c", "d"]) await end(key);
	t.equal(began(), 7);
	for (const [key, one] of seconds) await bodies.end(key, one);
	t.same(
		await Promise.all([...firsts.values(), ...seconds.values()]),
		Array.from({ length: 7 }, () => "whole"),
	);
});

t.test("what nobody waits for any more is left", async (t) => {
	const { bodies, began, unpack } = start(t);
	const [running, waiting] = [new AbortController(), new AbortController()];
	const first = unpack("a", running.signal);
	const second = unpack("a", waiting.signal);
	waiting.abort();
	t.equal(await second, "left");
	running.abort();
	await bodies.end("a", first);
	t.equal(await first, "left");
	const third = unpack("a");
	await bodies.end("a", third);
	t.equal(await third, "whole");
	t.equal(began(), 2);
});

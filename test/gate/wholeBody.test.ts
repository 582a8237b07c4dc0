import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { setImmediate as turn } from "node:timers/promises";
import { promisify } from "node:util";
import t from "tap";
import { WholeBody, wholeBodyBytes } from "../../src/gate/wholeBody.ts";

const mebibyte = 2 ** 20;

/** Pieces of a body of its own memory each, as Node's parser makes them. */
function* piecesOf(body: Buffer, sizeBytes: number): Generator<Buffer> {
	for (let at = 0; at < body.length; at += sizeBytes) {
		const part = body.subarray(at, at + sizeBytes);
		const piece = Buffer.allocUnsafeSlow(part.length);
		part.copy(piece);
		yield piece;
	}
}

t.test("a body is what its pieces were, whatever their sizes", async (t) => {
	for (const size of [1, 1000, wholeBodyBytes - 1, wholeBodyBytes, 200_000])
		for (const pieceSize of [1, 999, 16 * 1024, 64 * 1024])
			for (const announced of [size, Number.POSITIVE_INFINITY]) {
				if (pieceSize === 1 && size > 1000) continue;
				const body = randomBytes(size);
				const whole = new WholeBody(announced, 64 * mebibyte);
				for (const piece of piecesOf(body, pieceSize)) {
					whole.push(piece);
					whole.letGo(piece);
				}
				t.equal(whole.length, size);
				t.ok(
					whole.bytes.equals(body),
					`${size} bytes in pieces of ${pieceSize}, ${announced} announced`,
				);
			}
});

t.test(
	"a body takes no more than has come of it, and gives it back",
	async (t) => {
		const source = Buffer.alloc(20 * mebibyte, "a");
		const whole = new WholeBody(60 * mebibyte, 64 * mebibyte);
		const pieces: Buffer[] = [];
		for (const piece of piecesOf(source, 64 * 1024)) {
			whole.push(piece);
			whole.letGo(piece);
			pieces.push(piece);
		}
		await turn();
		t.ok(
			pieces.every(({ length }) => length === 0),
			"the pieces' memory is gone, though they are still known",
		);
		const { bytes } = whole;
		t.equal(bytes.length, 20 * mebibyte);
		t.ok(bytes.buffer.byteLength <= 21 * mebibyte, "of 60 that were announced");
		whole.release();
		t.equal(whole.length, 0);
		for (let n = 0; n < 10; n++) await turn();
		t.equal(bytes.length, 0, "nothing of it is left");
	},
);

t.test(
	"a piece that is the body, or part of other memory, is left alone",
	async (t) => {
		const only = randomBytes(32 * 1024);
		const whole = new WholeBody(only.length, mebibyte);
		whole.push(only);
		whole.letGo(only);
		await turn();
		t.equal(whole.bytes.length, 32 * 1024);
		const memory = Buffer.allocUnsafeSlow(128 * 1024);
		const long = new WholeBody(128 * 1024, mebibyte);
		for (const at of [0, 64 * 1024]) {
			const piece = memory.subarray(at, at + 64 * 1024);
			long.push(piece);
			long.letGo(piece);
			await turn();
			t.equal(piece.length, 64 * 1024);
		}
		t.ok(long.bytes.equals(memory));
	},
);

t.test("beyond its length at the most a body has no room", async (t) => {
	for (const announced of [100_000, Number.POSITIVE_INFINITY]) {
		const whole = new WholeBody(announced, 100_000);
		t.equal(whole.makeRoom(70_000), true);
		whole.push(Buffer.alloc(70_000));
		t.equal(whole.makeRoom(100_001), false);
		t.equal(whole.makeRoom(100_000), true);
		whole.push(Buffer.alloc(30_000));
		t.equal(whole.bytes.length, 100_000);
	}
});

t.test("where there are no addresses left, there is no room", async (t) => {
	const wholeBody = new URL("../../src/gate/wholeBody.ts", import.meta.url);
	const script = `
		const { WholeBody, wholeBodyBytes } = await import("${wholeBody.href}");
		const open = () => new WholeBody(Infinity, Number.MAX_VALUE);
		const bodies = [open()];
		while (bodies.length < 100 && bodies.at(-1).makeRoom(wholeBodyBytes + 1))
			bodies.push(open());
		const isRoomForShort = bodies.at(-1).makeRoom(wholeBodyBytes);
		for (const whole of bodies) whole.release();
		const isRoomAgain = open().makeRoom(wholeBodyBytes + 1);
		console.log(JSON.stringify([bodies.length, isRoomForShort, isRoomAgain]));
	`;
	const { stdout } = await promisify(execFile)("sh", [
		...["-c", 'ulimit -v 40000000 && exec "$0" --input-type=module -e "$1"'],
		...[process.execPath, script],
	]);
	const [count, ...isRoom] = JSON.parse(stdout) as [number, boolean, boolean];
	t.ok(count > 1 && count < 11, `of 40 GB, body ${count} of 4 GiB has none`);
	t.strictSame(isRoom, [true, true]);
});

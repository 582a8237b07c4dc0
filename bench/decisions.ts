import { Keyring } from "../src/keys/keyring.ts";
import { digestOf, generateKey } from "../src/keys/newKey.ts";
import { BodyScan } from "../src/ollama/bodyScan.ts";
import { FormScan } from "../src/ollama/formScan.ts";
import { WatchList } from "../src/ollama/watchedNames.ts";

/**
 * What the gate's own decisions cost, without a network: looking a key up
 * among many, and reading a body of a restricted key. `npm run bench:decisions`.
 */

const rounds = 31;

function median(values: number[]): number {
	return values.sort((a, b) => a - b)[Math.floor(values.length / 2)] ?? 0;
}

/** Median microseconds of one call, over rounds of many. */
function measure(calls: number, action: (call: number) => unknown): number {
	const times: number[] = [];
	for (let round = 0; round < rounds; round++) {
		const start = process.hrtime.bigint();
		for (let call = 0; call < calls; call++) action(call);
		times.push(Number(process.hrtime.bigint() - start) / 1000 / calls);
	}
	return median(times);
}

console.log(
	"## Looking a key up\n\n| keys | known, µs | unknown, µs |\n| --: | --: | --: |",
);
for (const count of [1, 100, 10_000]) {
	const keys = Array.from({ length: count }, generateKey);
	const ring = new Keyring(
		keys.map((key, i) => ({ name: `k${i}`, sha256: digestOf(key) })),
	);
	const unknown = generateKey();
	const known = measure(1000, (call) =>
		ring.find(keys[(call * 7919) % count] ?? ""),
	);
	const other = measure(1000, () => ring.find(unknown));
	console.log(`| ${count} | ${known.toFixed(2)} | ${other.toFixed(2)} |`);
}

const pieceBytes = 64 * 1024;
const watched = new WatchList({
	fields: ["model", "keep_alive"],
	options: ["num_ctx"],
	toolTypes: ["web_search"],
});

/** A chat of about a size: text in messages, or one image in base64. */
function chatOf(sizeBytes: number, kind: "text" | "image"): Buffer {
	const message =
		kind === "image"
			? { role: "user", content: "look", images: ["A".repeat(sizeBytes)] }
			: undefined;
	const line = {
		role: "user",
		content: 'He said: "a \\ b" and\nwent on, for a while. '.repeat(4),
	};
	const messages =
		message === undefined
			? Array.from(
					{ length: Math.ceil(sizeBytes / JSON.stringify(line).length) },
					() => line,
				)
			: [message];
	return Buffer.from(
		JSON.stringify({ model: "qwen3:8b", messages, options: { num_ctx: 4096 } }),
	);
}

/** A body of about a size that repeats one thing. */
function repeat(head: string, unit: string, sizeBytes: number, tail: string) {
	const count = Math.ceil(sizeBytes / unit.length);
	return Buffer.from(head + unit.repeat(count) + tail);
}

const partHead = '--x\r\nContent-Disposition: form-data; name="model"\r\n\r\nw';
const fileHead =
	'\r\n--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n';

const bodies: readonly [string, string, Buffer][] = [
	...([1_000, 1_000_000, 32_000_000] as const).flatMap(
		(sizeBytes): [string, string, Buffer][] => [
			[sizeOf(sizeBytes), "text", chatOf(sizeBytes, "text")],
			[sizeOf(sizeBytes), "an image", chatOf(sizeBytes, "image")],
		],
	),
	// What costs most in the fewest bytes.
	["8 MB", '`"a":1,`', repeat("{", '"a":1,', 8_000_000, '"b":1}')],
	["8 MB", "`1,`", repeat('{"a":[', "1,", 8_000_000, "1]}")],
	["8 MB", '`"",`', repeat('{"a":[', '"",', 8_000_000, '""]}')],
	["8 MB", "`[],`", repeat('{"a":[', "[],", 8_000_000, "1]}")],
	[
		"8 MB",
		'tools, `{"type":"a"},`',
		repeat('{"tools":[', '{"type":"a"},', 8_000_000, "{}]}"),
	],
	[
		"64 MB",
		"a form with a sound",
		Buffer.concat([
			Buffer.from(partHead + fileHead),
			Buffer.alloc(64_000_000),
			Buffer.from("\r\n--x--\r\n"),
		]),
	],
];

function sizeOf(sizeBytes: number): string {
	return sizeBytes >= 1_000_000
		? `${sizeBytes / 1_000_000} MB`
		: `${sizeBytes / 1000} KB`;
}

console.log(
	"\n## Reading a restricted key's body, in pieces of 64 KiB\n\n| body | of | ms | MB/s | longest piece, ms |\n| --: | :-- | --: | --: | --: |",
);
for (const [size, kind, body] of bodies) {
	let longestMs = 0;
	const scanOnce = () => {
		const scan =
			body[0] === 0x7b
				? new BodyScan(watched)
				: new FormScan("multipart/form-data; boundary=x");
		for (let at = 0; at < body.length; at += pieceBytes) {
			const start = performance.now();
			scan.push(body.subarray(at, at + pieceBytes));
			longestMs = Math.max(longestMs, performance.now() - start);
		}
		if (scan.finish().kind === "unclear")
			throw new Error("the body was refused");
	};
	for (let warm = 0; warm < 20 && warm * body.length < 100_000_000; warm++)
		scanOnce();
	longestMs = 0;
	const us = measure(
		body.length > 1_000_000 ? 1 : body.length > 2_000 ? 10 : 500,
		scanOnce,
	);
	console.log(
		`| ${size} | ${kind} | ${(us / 1000).toFixed(3)} | ${(body.length / us).toFixed(0)} | ${longestMs.toFixed(2)} |`,
	);
}

import { Keyring } from "../src/keys/keyring.ts";
import { digestOf, generateKey } from "../src/keys/newKey.ts";
import { BodyScan } from "../src/ollama/bodyScan.ts";

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

console.log(
	"\n## Reading a restricted key's body, in pieces of 64 KiB\n\n| body | of | ms | MB/s | longest piece, ms |\n| --: | :-- | --: | --: | --: |",
);
for (const [name, sizeBytes] of [
	["1 KB", 1_000],
	["1 MB", 1_000_000],
	["32 MB", 32_000_000],
] as const) {
	for (const kind of ["text", "image"] as const) {
		const body = chatOf(sizeBytes, kind);
		let longestMs = 0;
		const scanOnce = () => {
			const scan = new BodyScan(["model", "options"], ["num_ctx"]);
			for (let at = 0; at < body.length; at += pieceBytes) {
				const start = performance.now();
				scan.push(body.subarray(at, at + pieceBytes));
				longestMs = Math.max(longestMs, performance.now() - start);
			}
			if (scan.finish().kind !== "fields")
				throw new Error("the body was refused");
		};
		for (let warm = 0; warm < 20 && warm * sizeBytes < 100_000_000; warm++)
			scanOnce();
		longestMs = 0;
		const us = measure(
			sizeBytes > 1_000_000 ? 1 : sizeBytes > 1_000 ? 10 : 500,
			scanOnce,
		);
		console.log(
			`| ${name} | ${kind} | ${(us / 1000).toFixed(3)} | ${(body.length / us).toFixed(0)} | ${longestMs.toFixed(2)} |`,
		);
	}
}

import { fileURLToPath } from "node:url";
import { askLedger } from "../../src/ledger/ask.ts";
import { testKeys } from "../../test/support/gate.ts";
import { startGatePair } from "../gatePair.ts";
import {
	compile,
	type Native,
	runLoad,
	type StreamTimes,
	startUpstream,
} from "../native.ts";
import { cpuSeconds, stop } from "../processes.ts";
import { fixed, median, quantile, whole } from "../report.ts";
import { startLedger } from "./start.ts";

const streams = 64;
const tokens = 25;
const intervalUs = 20_000;
const slice = { warmUpMs: 500, measureMs: 2_500 };
const sliceSeconds = (slice.warmUpMs + slice.measureMs) / 1000;

interface Slice {
	readonly chunk50: number;
	readonly chunk99: number;
	readonly first99: number;
	/** Of the gate, microseconds for each stream that it relayed. */
	readonly cpu: number;
}

const figures = {
	chunk50: "chunk p50, µs",
	chunk99: "chunk p99, µs",
	first99: "first token p99, µs",
	cpu: "CPU of the gate a stream, µs",
} as const satisfies Record<keyof Slice, string>;

/**
 * What 64 streams at once feel of a ledger: two gates in one process, one of
 * which writes to it, by turns, so that both run the same compiled code and what
 * else the machine does meets both.
 */
export async function measureStreams(folder: string, seconds: number) {
	const native = compile(folder);
	const upstream = await startUpstream(native);
	const ledger = await startLedger(folder, "streams");
	const gates = await startGatePair(
		fileURLToPath(new URL("../ledger.ts", import.meta.url)),
		[`http://127.0.0.1:${upstream.port}`, ledger.socket],
	);
	const portOf = (url: string) => Number(new URL(url).port);
	const [off, on] = [portOf(gates.urls[0]), portOf(gates.urls[1])];
	const pids = [gates.child.pid ?? 0];
	for (const port of [off, on, off, on]) await measure(native, port, pids);
	const pairs: { off: Slice; on: Slice }[] = [];
	const endMs = performance.now() + seconds * 1000;
	while (performance.now() < endMs - 2 * sliceSeconds * 1000) {
		// Who is first has its turn too.
		const isOffFirst = pairs.length % 2 === 0;
		const first = await measure(native, isOffFirst ? off : on, pids);
		const second = await measure(native, isOffFirst ? on : off, pids);
		pairs.push(
			isOffFirst ? { off: first, on: second } : { off: second, on: first },
		);
	}
	const told = await askLedger(ledger.socket, { sinceMs: 0, by: [] });
	if (typeof told === "string" || told[0] === undefined)
		throw new Error(`the ledger has got nothing: ${told}`);
	const [{ requests }] = told;
	gates.leave();
	await stop(gates.child);
	await upstream.stop();
	await ledger.close();
	const ratios = (name: keyof Slice) =>
		pairs.map((pair) => pair.on[name] / pair.off[name]);
	return {
		title: `What ${streams} streams feel of a ledger`,
		notes: [
			`The ledger got ${whole(requests)} records meanwhile.`,
			`${pairs.length} pairs of slices of ${slice.measureMs / 1000} s by turns, two gates in one process; ${streams} streams of ${tokens} tokens, ${1e6 / intervalUs} a second each.`,
			`A pair's ratio is one slice's figure by the other's; half of all pairs lie in the range beside the median.`,
		],
		head: [
			"",
			"without",
			"with",
			"ratio, median of the pairs",
			"half of them",
			"added",
		],
		rows: Object.entries(figures).map(([key, title]) => {
			const name = key as keyof Slice;
			const all = ratios(name);
			return [
				title,
				whole(median(pairs.map((pair) => pair.off[name]))),
				whole(median(pairs.map((pair) => pair.on[name]))),
				`${fixed(median(all), 3)}×`,
				`${fixed(quantile(all, 0.25), 3)}–${fixed(quantile(all, 0.75), 3)}`,
				fixed(median(pairs.map((pair) => pair.on[name] - pair.off[name]))),
			];
		}),
	};
}

async function measure(
	native: Native,
	port: number,
	pids: readonly number[],
): Promise<Slice> {
	const before = cpuSeconds(pids);
	const { chunk, firstToken, received, lost } = await runLoad<StreamTimes>(
		native,
		{
			...{ mode: "streams", port, key: testKeys.worker },
			...{ streams, tokens, intervalUs, cold: 0 },
			...slice,
		},
	);
	if (lost > 0) throw new Error(`${lost} streams were cut`);
	const microseconds = (nanoseconds: number | undefined) =>
		(nanoseconds ?? Number.NaN) / 1000;
	return {
		chunk50: microseconds(chunk.p50),
		chunk99: microseconds(chunk.p99),
		first99: microseconds(firstToken.p99),
		cpu: (1e6 * (cpuSeconds(pids) - before)) / (received / tokens),
	};
}

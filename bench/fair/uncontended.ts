import { once } from "node:events";
import { Agent, type IncomingMessage, request } from "node:http";
import { createInterface } from "node:readline";
import { setTimeout as delay } from "node:timers/promises";
import { askDaemon } from "../../src/admin/client.ts";
import { startStandIn } from "../../src/ollama/standIn.ts";
import { bearer, spawnGate, testKeys } from "../../test/support/gate.ts";
import { cpuSeconds, pinning, start, stopAll } from "../processes.ts";
import { fixed, median, quantile, type Section } from "../report.ts";

/**
 * What the queue costs a request that finds a free slot: a program of its own,
 * since it keeps a core for the gate. Its argument is for how many seconds it
 * measures; it prints a section.
 */

const modes: readonly ("off" | "fair")[] = ["off", "fair"];
type Mode = (typeof modes)[number];

const sliceRequests = 200;
/** Node compiles the hot path for good only after some 40,000 requests. */
const warmRequests = 80_000;

interface Slice {
	readonly cpuMicroseconds: number;
	readonly firstMs: readonly number[];
}

const closing: (() => unknown)[] = [];
const bench = { teardown: (action: () => unknown) => closing.unshift(action) };

async function openGate() {
	const standIn = start([process.execPath, import.meta.filename, "stand-in"], {
		stdio: ["ignore", "pipe", "inherit"],
	});
	if (standIn.stdout === null) throw new Error("the stand-in has no output");
	const [url] = (await once(
		createInterface({ input: standIn.stdout }),
		"line",
	)) as [string];
	return spawnGate(bench, {
		...{ upstreamUrl: url, launcher: pinning.measured },
		// As in systemd/llamagate.service.
		nodeArgs: ["--max-semi-space-size=4", "--single-threaded-gc"],
		config: { queue: { mode: "off" } },
	});
}

async function measure(seconds: number): Promise<Section> {
	const gate = await openGate();
	const agent = new Agent({ keepAlive: true, maxSockets: 1 });
	bench.teardown(() => agent.destroy());
	const body = JSON.stringify({
		model: "qwen3:8b",
		messages: [{ role: "user", content: "Hello!" }],
		options: { num_predict: 1 },
	});
	const ask = async (): Promise<number> => {
		const sentMs = performance.now();
		const sent = request(new URL("/api/chat", gate.url), {
			...{ agent, method: "POST" },
			headers: {
				...bearer(testKeys.worker),
				"content-type": "application/json",
				"content-length": Buffer.byteLength(body),
			},
		});
		sent.end(body);
		const [reply] = (await once(sent, "response")) as [IncomingMessage];
		if (reply.statusCode !== 200)
			throw new Error(`the gate answers ${reply.statusCode}`);
		let firstMs: number | undefined;
		for await (const _ of reply) firstMs ??= performance.now() - sentMs;
		return firstMs ?? Number.NaN;
	};
	/** In the same process, so that no two starts are compared. */
	const use = async (mode: Mode) => {
		await gate.writeConfig({ queue: { mode } });
		const { status } = await askDaemon(
			`${gate.folder}/admin.sock`,
			"POST /reload",
		);
		if (status !== 200) throw new Error(`the reload was answered ${status}`);
	};
	const pids = [gate.child.pid as number];
	const slice = async (): Promise<Slice> => {
		const before = cpuSeconds(pids);
		const firstMs: number[] = [];
		for (let left = sliceRequests; left > 0; left--) firstMs.push(await ask());
		const cpu = cpuSeconds(pids) - before;
		return { cpuMicroseconds: (1e6 * cpu) / sliceRequests, firstMs };
	};
	for (const mode of modes) {
		await use(mode);
		for (let left = warmRequests / 2; left > 0; left--) await ask();
	}
	const slices: Record<Mode, Slice[]> = { off: [], fair: [] };
	const endMs = performance.now() + seconds * 1000;
	// The one, the other, the other, the one: what grows all the time counts for neither.
	for (let order = modes; ; order = order.toReversed()) {
		for (const mode of order) {
			await use(mode);
			// What the reload itself costs is not a request's.
			for (let left = 20; left > 0; left--) await ask();
			await delay(20);
			slices[mode].push(await slice());
		}
		if (performance.now() > endMs && slices.fair.length >= 4) break;
	}
	const figures = Object.fromEntries(
		modes.map((mode) => [
			mode,
			{
				cpu: median(slices[mode].map((one) => one.cpuMicroseconds)),
				first50: quantile(
					slices[mode].flatMap((one) => one.firstMs),
					0.5,
				),
			},
		]),
	) as Record<Mode, { cpu: number; first50: number }>;
	const { off, fair } = figures;
	// By turns, so that a machine that slows down slows both.
	const added = slices.fair.map(
		(one, index) =>
			one.cpuMicroseconds - (slices.off[index]?.cpuMicroseconds ?? Number.NaN),
	);
	const cpuAdded = median(added);
	const firstAdded = fair.first50 - off.first50;
	return {
		name: "queue, nobody waits",
		title: "The queue where nobody waits: one request after the other",
		notes: [
			`on the stand-in, one gate on a core of its own whose queue is turned on and off by reloads, after ${warmRequests / 2} requests each way; ${slices.fair.length} slices of ${sliceRequests} requests each way, by turns`,
			`the added CPU is the median of the pairs; half of them lie between ${fixed(quantile(added, 0.25))} and ${fixed(quantile(added, 0.75))} µs`,
		],
		head: ["queue", "CPU µs a request", "added", "first byte p50, ms", "added"],
		rows: [
			["off", fixed(off.cpu), "", fixed(off.first50, 3), ""],
			[
				...["fair", fixed(fair.cpu), fixed(cpuAdded)],
				...[fixed(fair.first50, 3), fixed(firstAdded, 3)],
			],
		],
		figures: { off, gate: { ...fair, cpuAdded, firstAdded } },
		data: {
			off: slices.off.map(({ cpuMicroseconds }) => cpuMicroseconds),
			fair: slices.fair.map(({ cpuMicroseconds }) => cpuMicroseconds),
		},
	};
}

async function closeAll(): Promise<void> {
	for (let close = closing.shift(); close; close = closing.shift())
		await close();
	await stopAll();
}
for (const signal of ["SIGINT", "SIGTERM"] as const)
	process.once(signal, () => void closeAll().then(() => process.exit(1)));

const [, , what = ""] = process.argv;
if (what === "stand-in") {
	const { url } = await startStandIn({ remember: false });
	process.stdout.write(`${url}\n`);
} else
	try {
		process.stdout.write(JSON.stringify(await measure(Number(what))));
	} finally {
		await closeAll();
	}

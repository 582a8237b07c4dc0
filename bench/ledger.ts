import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { askLedger } from "../src/ledger/ask.ts";
import { LedgerClient } from "../src/ledger/client.ts";
import { openStore } from "../src/ledger/openStore.ts";
import { PostgresStore } from "../src/ledger/postgres/store.ts";
import { maxBatchRecords } from "../src/ledger/protocol.ts";
import { type Dimension, dayMs } from "../src/ledger/store.ts";
import { createLog } from "../src/log.ts";
import { startStandIn } from "../src/ollama/standIn.ts";
import { startPostgres } from "../test/support/postgres.ts";
import { writeDocuments } from "./document.ts";
import {
	runGatePair,
	shortChat,
	sliceRequests,
	startGatePair,
} from "./gatePair.ts";
import { madeUp, startLedger } from "./ledger/start.ts";
import { measureSteady } from "./ledger/steady.ts";
import { measureStreams } from "./ledger/streams.ts";
import { cpuSeconds, stop, stopAll } from "./processes.ts";
import {
	fixed,
	mebibytes,
	median,
	quantile,
	ratio,
	renderSection,
	type Section,
	whole,
} from "./report.ts";
import { roomyQueue } from "./targets.ts";

/**
 * What the ledger costs and bears: records a second, the CPU that it adds to a
 * request of the gate's, and a question about 30 days of many records.
 *
 *     node bench/ledger.ts [--records 10000000] [--seconds 20] [--rounds 3] [--only LIST]
 *
 * `--only database` does the first and the last with a PostgreSQL of its own,
 * `--only streams [--seconds 140]` compares what 64 streams feel of it, and
 * `--only steady [--minutes 60]` writes 2,000 records a second for an hour.
 * `--docs` writes what was measured into docs/performance.md.
 */
const { values: options, positionals } = parseArgs({
	allowPositionals: true,
	options: {
		records: { type: "string", default: "10000000" },
		seconds: { type: "string" },
		rounds: { type: "string", default: "3" },
		minutes: { type: "string", default: "60" },
		docs: { type: "boolean", default: false },
		only: { type: "string", default: "throughput,gate,question" },
	},
});
const [mostRecords, rounds, minutes] = [
	options.records,
	options.rounds,
	options.minutes,
].map(Number) as [number, number, number];
const seconds = Number(options.seconds ?? 20);
const streamSeconds = Number(options.seconds ?? 140);

const measured: Section[] = [];
function show(shown: Omit<Section, "name" | "figures" | "data">): void {
	const one = {
		name: `ledger: ${shown.title}`,
		figures: {},
		data: {},
		...shown,
	};
	measured.push(one);
	process.stdout.write(`${renderSection(one)}\n`);
}

const folder = mkdtempSync(path.join(tmpdir(), "llamagate-ledger-bench-"));
const closing: (() => unknown)[] = [];
const bench = { teardown: (action: () => unknown) => closing.unshift(action) };
const quiet = createLog("silent", { write() {} });
const nowMs = Date.now();

/** Records a second, from a gate's side of the socket to the disk. */
async function measureThroughput(
	place?: Parameters<typeof startLedger>[2],
): Promise<void> {
	const ledger = await startLedger(folder, "throughput", place);
	const client = new LedgerClient(ledger.socket, quiet);
	while (!client.counts.isConnected) await delay(5);
	let made = 0;
	const startedMs = performance.now();
	const cpuBefore = process.cpuUsage();
	const ledgerCpu = cpuSeconds([ledger.pid]);
	const endMs = startedMs + seconds * 1000;
	while (performance.now() < endMs) {
		// To look at the counts costs more than a record.
		while (made - client.counts.written < 4_000)
			for (let n = 0; n < maxBatchRecords; n += 1)
				client.record(madeUp(made++, nowMs));
		await delay(1);
	}
	while (client.counts.waiting > 0) await delay(1);
	const took = (performance.now() - startedMs) / 1000;
	const { user, system } = process.cpuUsage(cpuBefore);
	const { written, lost, aggregated } = client.counts;
	const madeBefore = process.cpuUsage();
	let length = 0;
	for (let n = 0; n < 100_000; n += 1) length += madeUp(n, nowMs).user.length;
	const making = process.cpuUsage(madeBefore);
	const makingEach = (making.user + making.system) / 100_000;
	if (length === 0) throw new Error("nothing was made");
	show({
		title: `Records a second${place === undefined ? "" : ", into PostgreSQL"}`,
		notes: [
			`${whole(written)} records over the socket in batches of ${maxBatchRecords}, each on the disk before it is answered; ${lost} lost, ${aggregated} put together.`,
		],
		head: ["", "figure"],
		rows: [
			["records a second", whole(written / took)],
			["times the goal of 2,000", ratio(written / took, 2_000)],
			[
				"ledger's CPU, µs a record",
				fixed((1e6 * (cpuSeconds([ledger.pid]) - ledgerCpu)) / written),
			],
			[
				"sender's CPU, µs a record, less making it up",
				fixed((user + system) / written - makingEach),
			],
		],
	});
	await client.close(1_000);
	await ledger.close();
}

function runGates(upstreamUrl: string, socket: string): Promise<void> {
	return runGatePair(bench, [
		{ upstreamUrl, config: { queue: roomyQueue } },
		{ upstreamUrl, config: { queue: roomyQueue, ledger: { socket } } },
	]);
}

/** The CPU that a ledger adds to a request, by turns. */
async function measureGate(): Promise<void> {
	const added: number[] = [];
	const all: Record<"off" | "on", number[]> = { off: [], on: [] };
	for (let round = 0; round < rounds; round += 1) {
		const ledger = await startLedger(folder, `gate${round}`);
		const standIn = await startStandIn({ remember: false });
		const gates = await startGatePair(import.meta.filename, [
			...[standIn.url, ledger.socket],
		]);
		const [off, on] = gates.urls;
		await gates.warmUp(shortChat);
		const endMs = performance.now() + (1000 * seconds) / rounds;
		while (performance.now() < endMs) {
			const { cpu: without } = await gates.slice(off, shortChat);
			const { cpu: with_ } = await gates.slice(on, shortChat);
			all.off.push(without);
			all.on.push(with_);
			added.push(with_ - without);
		}
		gates.leave();
		await stop(gates.child);
		await standIn.close();
		await ledger.close();
	}
	show({
		title: "What a ledger adds to a request",
		notes: [
			`CPU of the gate a request, /api/chat of one token: ${added.length} pairs of slices of ${sliceRequests} requests, by turns, two gates in one process, ${rounds} processes.`,
			`Half of the pairs' differences lie between ${fixed(quantile(added, 0.25))} and ${fixed(quantile(added, 0.75))} µs.`,
		],
		head: ["", "without", "with", "ratio", "added, median of the pairs"],
		rows: [
			[
				"µs a request, median",
				fixed(median(all.off)),
				fixed(median(all.on)),
				ratio(median(all.on), median(all.off)),
				fixed(median(added)),
			],
		],
	});
}

/** The records from the nth on, ten thousand at the most, of those that lie over 90 days. */
function batchFrom(n: number) {
	const spanMs = 89 * dayMs;
	return Array.from({ length: Math.min(10_000, mostRecords - n) }, (_, i) =>
		madeUp(
			n + i,
			Math.round(nowMs - spanMs + (spanMs * (n + i)) / mostRecords),
		),
	);
}

/** A file of many records over 90 days, and a question about 30 of them. */
async function measureQuestion(): Promise<void> {
	const file = path.join(folder, "many.sqlite");
	const { store } = openStore(file, 90 * dayMs);
	const startedMs = performance.now();
	for (let n = 0; n < mostRecords; n += 10_000) {
		store.append("bench", n / 10_000 + 1, batchFrom(n));
	}
	store.close();
	const filledS = (performance.now() - startedMs) / 1000;
	const openedMs = performance.now();
	const ledger = await startLedger(folder, "many");
	const opensS = (performance.now() - openedMs) / 1000;
	const rows: string[][] = [];
	for (const by of ["user", "model", "day", "user,key,model"]) {
		const tookMs = [1, 2, 3].map(() => {
			const before = performance.now();
			const { status } = spawnSync(process.execPath, [
				...["src/main.ts", "usage", "--config", ledger.configFile],
				...["--since", "30d", "--by", by, "--json"],
			]);
			if (status !== 0) throw new Error(`usage ended with ${status}`);
			return performance.now() - before;
		});
		const askedMs = performance.now();
		const answer = await askLedger(ledger.socket, {
			sinceMs: nowMs - 30 * dayMs,
			by: by.split(",") as Dimension[],
		});
		if (typeof answer === "string") throw new Error(answer);
		rows.push([
			`the ledger's answer by ${by}, ${answer.length} rows, s`,
			fixed((performance.now() - askedMs) / 1000, 2),
		]);
		rows.push([
			`usage --since 30d --by ${by}, s`,
			fixed(median(tookMs) / 1000, 2),
		]);
	}
	show({
		title: `A ledger of ${whole(mostRecords)} records`,
		notes: [
			"The whole program, from its start to its end; the median of three.",
		],
		head: ["", "figure"],
		rows: [
			["file, MiB", mebibytes(statSync(file).size)],
			["bytes a record", fixed(statSync(file).size / mostRecords)],
			[
				"records a second into the file, by 10,000",
				whole(mostRecords / filledS),
			],
			["the ledger's start, with its look at the whole file, s", fixed(opensS)],
			...rows,
		],
	});
	await ledger.close();
}

/** The same into a PostgreSQL of its own, on this machine, and a question about what is there. */
async function measureDatabase(): Promise<void> {
	const server = await startPostgres(bench, { settings: ["fsync=on"] });
	const { passwordFile } = server;
	await measureThroughput({
		url: (await server.createDatabase()).url,
		passwordFile,
	});
	const { database } = await server.createDatabase();
	const store = new PostgresStore({
		...{ database, passwordFile, retentionMs: 90 * dayMs, gate: "bench" },
	});
	const startedMs = performance.now();
	for (let n = 0; n < mostRecords; n += 10_000)
		await store.append("bench", n / 10_000 + 1, batchFrom(n));
	const filledS = (performance.now() - startedMs) / 1000;
	const rows: string[][] = [];
	for (const by of ["user", "model", "day", "user,key,model"]) {
		const askedMs = performance.now();
		const answer = await store.usage({
			sinceMs: nowMs - 30 * dayMs,
			by: by.split(",") as Dimension[],
		});
		rows.push([
			`its answer by ${by}, ${answer.length} rows, s`,
			fixed((performance.now() - askedMs) / 1000, 2),
		]);
	}
	const [size] = await server.sql(
		database.name,
		"SELECT pg_database_size(current_database())::float8 AS bytes",
	);
	await store.close();
	show({
		title: `A PostgreSQL of ${whole(mostRecords)} records`,
		notes: ["Questions are about the last 30 of 89 days."],
		head: ["", "figure"],
		rows: [
			["database, MiB", mebibytes(Number(size?.bytes))],
			["records a second into it, by 10,000", whole(mostRecords / filledS)],
			...rows,
		],
	});
}

const parts: Record<string, () => Promise<void>> = {
	throughput: () => measureThroughput(),
	database: measureDatabase,
	gate: measureGate,
	question: measureQuestion,
	streams: async () => {
		show(await measureStreams(folder, streamSeconds));
	},
	steady: async () => {
		show(await measureSteady(folder, minutes));
	},
};
const [what, upstreamUrl, socket] = positionals;
if (what === "gates" && upstreamUrl !== undefined && socket !== undefined)
	await runGates(upstreamUrl, socket);
try {
	for (const part of options.only.split(",")) {
		const measure = parts[part];
		if (measure === undefined) throw new Error(`there is no part ${part}`);
		await measure();
	}
	if (options.docs)
		await writeDocuments(
			fileURLToPath(new URL("../docs", import.meta.url)),
			undefined,
			measured,
		);
} finally {
	for (const close of closing) await close();
	await stopAll();
	rmSync(folder, { recursive: true, force: true });
}
process.exit(0);

import { rmSync } from "node:fs";
import { mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { renderReport, writeDocuments } from "./document.ts";
import { describeMachine, foreignCpuShare, readCpuTimes } from "./machine.ts";
import {
	compile,
	type RequestCounts,
	runLoad,
	type StreamTimes,
} from "./native.ts";
import { cpuSeconds, stopAll, stopAllOnSignals } from "./processes.ts";
import { fixed, median, ratio, type Section, whole } from "./report.ts";
import { key, type Stage, type Target, withTargets } from "./targets.ts";

const help = `
Usage: node bench/olla.ts --olla FILE [--version TEXT] [--quick] [--docs]

The gate beside Olla before the same upstream, each on one core, by turns: small
replies a second, and the CPU of a streamed chunk. The gate checks a key with a
rule about models; Olla checks none. Two minutes, on a quiet machine.

  --olla FILE     its program
  --version TEXT  which one it is, for the table: one that is built from its
                  sources does not know
  --quick         one short round
  --docs          writes docs/performance.md, its plots and its figures; what was
                  not measured this time stays
`;

const { values } = parseArgs({
	options: {
		olla: { type: "string" },
		version: { type: "string", default: "of a version that was not said" },
		quick: { type: "boolean", default: false },
		docs: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help || values.olla === undefined) {
	process.stdout.write(help);
	process.exit(values.help ? 0 : 2);
}
const olla = path.resolve(values.olla);
stopAllOnSignals();

const starts = values.quick ? 1 : 3;
const slices = values.quick ? 1 : 3;
const seconds = 2;
// Node compiles the hot path for good only after some 40,000 requests.
const warmUpSeconds = values.quick ? 1 : 4;
const streams = 64;

const names = ["gate", "olla"] as const;
type Name = (typeof names)[number];
const found: Record<Name, { rate: number[]; cpu: number[]; chunk: number[] }> =
	{
		gate: { rate: [], cpu: [], chunk: [] },
		olla: { rate: [], cpu: [], chunk: [] },
	};

/** Olla has the calls of an Ollama below a path of its own. It answers /api/tags itself, and passes this one on. */
const prefixOf = { gate: "", olla: "/olla/ollama" };
const smallCall = "/api/version";

async function requests(stage: Stage, name: Name, target: Target, run: number) {
	const before = cpuSeconds(target.pids);
	const counts = await runLoad<RequestCounts>(stage.native, {
		mode: "requests",
		...{ port: target.port, key, seconds: run, connections: 32 },
		...{ from: "127.0.1.1", sources: 32, path: prefixOf[name] + smallCall },
		// Olla takes requests that are cut for an upstream that fails, and stops asking it.
		finish: 1,
	});
	const others = Object.keys(counts.statuses).filter((one) => one !== "200");
	if (others.length > 0 || counts.answered === 0)
		throw new Error(`${name} answered ${others.join(", ") || "nothing"}`);
	const cpu = cpuSeconds(target.pids) - before;
	return {
		rate: counts.answeredPerSecond,
		cpu: (1e6 * cpu) / counts.answered,
	};
}

async function chunks(stage: Stage, name: Name, target: Target, run: number) {
	const before = cpuSeconds(target.pids);
	const times = await runLoad<StreamTimes>(stage.native, {
		mode: "streams",
		...{ port: target.port, key, streams, tokens: 25, intervalUs: 20_000 },
		...{ warmUpMs: 500, measureMs: 1_000 * run },
		path: `${prefixOf[name]}/api/generate`,
	});
	if (times.lost > 0)
		throw new Error(`${name}: ${times.lost} streams were cut`);
	return (1e6 * (cpuSeconds(target.pids) - before)) / times.received;
}

/** It listens before it has asked its Ollama for models, and refuses prompts until then. */
async function knowsItsModel({ port }: Target): Promise<void> {
	const endMs = performance.now() + 30_000;
	while (performance.now() < endMs) {
		const reply = await fetch(
			`http://127.0.0.1:${port}${prefixOf.olla}/api/tags`,
		).catch(() => undefined);
		if ((await reply?.text())?.includes('"bench"')) return;
		await delay(100);
	}
	throw new Error("Olla has not found its upstream's model within 30 s");
}

async function measure(stage: Stage, round: number): Promise<void> {
	await withTargets(
		stage,
		async (targets, notes) => {
			if (notes.length > 0) throw new Error(notes.join("; "));
			const of = (name: Name) => {
				const target = targets.find((one) => one.name === name);
				if (target === undefined) throw new Error(`there is no ${name}`);
				return target;
			};
			await knowsItsModel(of("olla"));
			const order = round % 2 === 0 ? names : names.toReversed();
			for (const name of order) {
				await requests(stage, name, of(name), warmUpSeconds);
				await chunks(stage, name, of(name), 1);
			}
			for (let slice = 0; slice < slices; slice += 1)
				for (const name of order) {
					const { rate, cpu } = await requests(stage, name, of(name), seconds);
					const chunk = await chunks(stage, name, of(name), seconds);
					found[name].rate.push(rate);
					found[name].cpu.push(cpu);
					found[name].chunk.push(chunk);
					stage.progress(
						`${name}: ${whole(rate)} replies/s, ${fixed(cpu)} µs each, ${fixed(chunk)} µs a chunk`,
					);
				}
		},
		{ names, olla, gate: { modelRule: true } },
	);
}

function section(): Section {
	const figures = Object.fromEntries(
		names.map((name) => {
			const { rate, cpu, chunk } = found[name];
			return [
				name,
				{ rate: median(rate), cpu: median(cpu), chunk: median(chunk) },
			];
		}),
	) as Record<Name, { rate: number; cpu: number; chunk: number }>;
	return {
		name: "olla",
		title: "Beside Olla",
		notes: [
			`GET ${smallCall}, 400 bytes, 32 keep-alive connections; ${streams} streams of 50 tokens a second`,
			`the gate checks a key and a rule about models; Olla (${values.version}) checks no key, its limits are off (bench/peers/olla.yaml); both log each request`,
			`median of ${starts} fresh start(s) with ${slices} slice(s) each, by turns`,
		],
		head: [
			"",
			"requests/s",
			"of Olla",
			"CPU µs a request",
			"CPU µs a chunk",
			"of Olla",
		],
		rows: names.map((name) => {
			const { rate, cpu, chunk } = figures[name];
			return [
				name,
				whole(rate),
				ratio(rate, figures.olla.rate),
				fixed(cpu),
				fixed(chunk),
				ratio(chunk, figures.olla.chunk),
			];
		}),
		figures,
		data: found,
	};
}

const folder = await mkdtemp(path.join(tmpdir(), "llamagate-olla-"));
process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
const stage: Stage = {
	quick: values.quick,
	folder,
	native: compile(folder),
	against: undefined,
	peerLog: true,
	progress: (text) => process.stderr.write(`${text}\n`),
};
const machine = describeMachine(stage);
const cpuBefore = readCpuTimes();
try {
	for (let round = 0; round < starts; round += 1) await measure(stage, round);
} finally {
	await stopAll();
}
machine.push(["CPU used by others meanwhile", foreignCpuShare(cpuBefore)]);
process.stdout.write(
	`# llamagate beside Olla\n\n${renderReport(machine, [section()])}`,
);
if (values.docs)
	await writeDocuments(
		fileURLToPath(new URL("../docs", import.meta.url)),
		undefined,
		[section()],
	);

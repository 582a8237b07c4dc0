import { cpSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { digestOf } from "../src/keys/newKey.ts";
import { freePort } from "../test/support/freePort.ts";
import { writeDocuments } from "./document.ts";
import { installedProgram, scriptOf } from "./installed.ts";
import {
	describeBriefly,
	describeMachine,
	foreignCpuShare,
	readCpuTimes,
} from "./machine.ts";
import {
	compile,
	type RequestCounts,
	runLoad,
	type StreamTimes,
} from "./native.ts";
import {
	cpuSeconds,
	pinning,
	proportionalBytes,
	start,
	stop,
	stopAll,
	stopAllOnSignals,
} from "./processes.ts";
import { comparedRow, median, renderSection, type Section } from "./report.ts";
import {
	key,
	nodeOptions,
	type Stage,
	type Target,
	withTargets,
} from "./targets.ts";

const help = `
Usage: node bench/start.ts [--baseline DIR] [--rounds N] [--docs]

What the published program costs before and between requests, and what a request
costs it: built from this tree, and beside it another's in the same rounds. Needs
gcc and libc6-dev.

  --baseline DIR  another llamagate tree; npm ci && npm run build in it first
  --rounds N      how often each is measured; the median counts (default: 5)
  --docs          puts the table into docs/performance.md
`;

const { values } = parseArgs({
	options: {
		baseline: { type: "string" },
		rounds: { type: "string", default: "5" },
		docs: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help) {
	process.stdout.write(help);
	process.exit(0);
}
stopAllOnSignals();

/** What is measured, how it is written, and how much of the baseline's it may be. */
const measures = [
	{ name: "start to listening: CPU, ms", most: 0.35, digits: 0 },
	{ name: "start to listening: time, ms", digits: 0 },
	{ name: "memory at idle (PSS), MiB", most: 0.7, digits: 1 },
	{ name: "`llamagate --version`: CPU, ms", most: 0.5, digits: 0 },
	{ name: "`llamagate --version`: time, ms", digits: 0 },
	{ name: "a small reply: CPU, µs", most: 0.85, digits: 1 },
	{ name: "a refusal without a key: CPU, µs", most: 0.85, digits: 1 },
	{ name: "a chunk, 64 streams: CPU, µs", most: 1, digits: 1 },
] as const;
type Name = (typeof measures)[number]["name"];
type Sample = Readonly<Record<Name, number>>;

const ownTree = fileURLToPath(new URL("..", import.meta.url));
const folder = await mkdtemp(path.join(tmpdir(), "llamagate-start-"));
/** A file of its own, whose pages no other process shares. */
const node = path.join(folder, "node");
cpSync(process.execPath, node);
const configFile = path.join(folder, "config.json");

/** Starts a tree's daemon as its unit does, and ends it when it has been idle for a while. */
async function measureStart(tree: string) {
	const program = installedProgram(tree);
	await writeFile(
		configFile,
		JSON.stringify({
			listen: { address: "127.0.0.1", port: await freePort() },
			sources: ["127.0.0.0/16"],
			admin: { socket: "off", metrics: "off" },
			drainTimeout: "1s",
		}),
	);
	const startedAt = performance.now();
	const child = start(
		[
			...[...pinning.measured, node, ...nodeOptions],
			...["--permission", "--disable-warning=PERM0002"],
			...[`--allow-fs-read=${program}`, `--allow-fs-read=${folder}`],
			...[`--allow-fs-write=${folder}/run`, "--allow-child-process"],
			...[scriptOf(program), "serve", "--config", configFile],
		],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	const { pid = 0 } = child;
	let said = "";
	for await (const piece of child.stdout ?? []) {
		said += String(piece);
		if (said.includes('"msg":"started"')) break;
	}
	const wallMs = performance.now() - startedAt;
	const cpuMs = cpuSeconds([pid]) * 1e3;
	await delay(2_000);
	const pssMib = proportionalBytes(pid) / 2 ** 20;
	await stop(child);
	return { wallMs, cpuMs, pssMib };
}

const versionRuns = 10;

/** Has a tree's program say its version, some times, as the kernel's clock is coarse. */
async function measureVersion(tree: string) {
	const script = scriptOf(installedProgram(tree));
	const loop = `i=0; while [ $i -lt ${versionRuns} ]; do "$@" >/dev/null; i=$((i + 1)); done; times`;
	const startedAt = performance.now();
	const child = start(
		[
			...pinning.measured,
			...["sh", "-c", loop, "sh", node, script, "--version"],
		],
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	let said = "";
	for await (const piece of child.stdout ?? []) said += String(piece);
	const wallMs = performance.now() - startedAt;
	// The shell's own and, in the second line, that of its children: user and system.
	const seconds = [
		...(said.split("\n")[1] ?? "").matchAll(/(\d+)m([\d.]+)s/g),
	].map(([, minutes, rest]) => Number(minutes) * 60 + Number(rest));
	const cpuMs = 1e3 * seconds.reduce((sum, one) => sum + one, 0);
	return { wallMs: wallMs / versionRuns, cpuMs: cpuMs / versionRuns };
}

/** CPU time of a target in one slice, and how much work that was. */
interface Slice {
	readonly cpuSeconds: number;
	readonly count: number;
}

const warmUpSeconds = 3;
const slices = 4;

/**
 * What a unit of work costs each target, in microseconds. They take turns in slices
 * of a second, so that a machine that slows down meanwhile slows them all.
 */
async function byTurns(
	targets: readonly Target[],
	work: (target: Target, seconds: number) => Promise<number>,
): Promise<Map<string, number>> {
	// Node compiles the hot path for good only after some 40,000 requests.
	for (const target of targets) await work(target, warmUpSeconds);
	const found = new Map<string, Slice>();
	for (let slice = 0; slice < slices; slice++)
		for (const target of slice % 2 === 0 ? targets : targets.toReversed()) {
			const before = cpuSeconds(target.pids);
			const count = await work(target, 1);
			const sum = found.get(target.name) ?? { cpuSeconds: 0, count: 0 };
			found.set(target.name, {
				cpuSeconds: sum.cpuSeconds + cpuSeconds(target.pids) - before,
				count: sum.count + count,
			});
		}
	return new Map(
		[...found].map(([name, sum]) => [name, (1e6 * sum.cpuSeconds) / sum.count]),
	);
}

const requestsWith =
	(stage: Stage, options: Readonly<Record<string, string | number>>) =>
	async ({ port }: Target, seconds: number) => {
		const counts = await runLoad<RequestCounts>(stage.native, {
			...{ mode: "requests", port, from: "127.0.1.1", seconds },
			...options,
		});
		return counts.answered;
	};

const chunks =
	(stage: Stage) =>
	async ({ port }: Target, seconds: number) => {
		const { received, lost } = await runLoad<StreamTimes>(stage.native, {
			...{ mode: "streams", port, key, streams: 64, tokens: 25 },
			...{ intervalUs: 20_000, cold: 0, warmUpMs: 500 },
			measureMs: 1_000 * seconds,
		});
		if (lost > 0) throw new Error(`${lost} streams were cut`);
		return received;
	};

try {
	const { baseline } = values;
	const trees: Record<string, string> = { gate: ownTree };
	if (baseline !== undefined) trees.against = path.resolve(baseline);
	const samples = Object.fromEntries(
		Object.keys(trees).map((name) => [name, [] as Sample[]]),
	);
	await mkdir(path.join(folder, "run"));
	await writeFile(
		path.join(folder, "keys.json"),
		JSON.stringify({ keys: [{ name: "bench", sha256: digestOf(key) }] }),
		{ mode: 0o600 },
	);
	const stage: Stage = {
		quick: false,
		folder,
		native: compile(folder),
		against: baseline,
		peerLog: false,
		progress: (text) => process.stderr.write(`${text}\n`),
	};
	const machine = describeMachine(stage);
	const cpuBefore = readCpuTimes();
	const rounds = Number(values.rounds);
	for (let round = 0; round < rounds; round++) {
		stage.progress(`round ${round + 1} of ${rounds}`);
		await withTargets(
			stage,
			async (targets, notes) => {
				for (const note of notes) stage.progress(note);
				const measured = targets.filter(({ pids }) => pids.length > 0);
				// Who is first has the caches colder.
				if (round % 2 === 1) measured.reverse();
				const many = { sources: 250, connections: 250 };
				const reply = await byTurns(
					measured,
					requestsWith(stage, { key, sources: 32, connections: 32 }),
				);
				const refusal = await byTurns(
					measured,
					requestsWith(stage, { ...many, key: "" }),
				);
				const chunk = await byTurns(measured, chunks(stage));
				for (const { name } of measured) {
					const tree = trees[name] ?? "";
					const { wallMs, cpuMs, pssMib } = await measureStart(tree);
					const version = await measureVersion(tree);
					samples[name]?.push({
						"start to listening: CPU, ms": cpuMs,
						"start to listening: time, ms": wallMs,
						"memory at idle (PSS), MiB": pssMib,
						"`llamagate --version`: CPU, ms": version.cpuMs,
						"`llamagate --version`: time, ms": version.wallMs,
						"a small reply: CPU, µs": reply.get(name) ?? Number.NaN,
						"a refusal without a key: CPU, µs": refusal.get(name) ?? Number.NaN,
						"a chunk, 64 streams: CPU, µs": chunk.get(name) ?? Number.NaN,
					});
				}
			},
			{ names: Object.keys(trees) },
		);
	}
	const middle = (tree: string, name: Name) =>
		median((samples[tree] ?? []).map((sample) => sample[name]));
	const section: Section = {
		name: "installed",
		title: "The published program: start, memory, and what a request costs it",
		notes: [
			`median of ${rounds} rounds; as its unit starts it, from a copy of Node that no other process shares`,
			describeBriefly(machine),
			`load average at the start ${machine.find(([name]) => name.startsWith("load"))?.[1]}; CPU used by others meanwhile: ${foreignCpuShare(cpuBefore)}`,
			...(baseline === undefined
				? []
				: [`beside it, in the same rounds, ${path.basename(baseline)}`]),
		],
		head: ["", ...Object.keys(trees), "ratio", "goal", ""],
		rows: measures.map((measure) =>
			comparedRow(
				measure.name,
				middle("gate", measure.name),
				baseline === undefined ? undefined : middle("against", measure.name),
				measure.digits,
				"most" in measure ? measure.most : undefined,
			),
		),
		figures: Object.fromEntries(
			Object.keys(trees).map((tree) => [
				tree,
				Object.fromEntries(
					measures.map(({ name }) => [name, middle(tree, name)]),
				),
			]),
		),
		data: samples,
	};
	process.stdout.write(renderSection(section));
	if (values.docs)
		await writeDocuments(
			fileURLToPath(new URL("../docs", import.meta.url)),
			undefined,
			[section],
		);
} finally {
	await stopAll();
	await rm(folder, { recursive: true, force: true });
}

import { cpSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeDocuments } from "./document.ts";
import { describeBriefly, describeMachine } from "./machine.ts";
import { compile, runLoad, type StreamTimes } from "./native.ts";
import { proportionalBytes, stopAll, stopAllOnSignals } from "./processes.ts";
import {
	comparedRow,
	fixed,
	renderSection,
	type Section,
	whole,
} from "./report.ts";
import { key, type Stage, withTargets } from "./targets.ts";

const help = `
Usage: node bench/soak.ts [--baseline DIR] [--streams N] [--docs]

The memory (PSS) of the published program after many short streams, once it is
idle again: built from this tree, and beside it another's. A million streams take
a quarter of an hour. Needs gcc and libc6-dev.

  --baseline DIR  another llamagate tree; npm ci && npm run build in it first
  --streams N     through each of them (default: 1000000)
  --docs          puts the table into docs/performance.md
`;

const { values } = parseArgs({
	options: {
		baseline: { type: "string" },
		streams: { type: "string", default: "1000000" },
		docs: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help) {
	process.stdout.write(help);
	process.exit(0);
}
stopAllOnSignals();

/** How much of the baseline's memory it may be. */
const most = 0.7;
const atOnce = 64;
const tokens = 3;
const stepMs = 20_000;
/** V8 looks whether it can give memory back some seconds after the last allocation. */
const idleMs = 60_000;

const wanted = Number(values.streams);
const folder = await mkdtemp(path.join(tmpdir(), "llamagate-soak-"));
const baseline =
	values.baseline === undefined ? undefined : path.resolve(values.baseline);
const stage: Stage = {
	quick: false,
	folder,
	native: compile(folder),
	against: baseline,
	peerLog: false,
	progress: (text) => process.stderr.write(`${text}\n`),
};

interface Soaked {
	/** The memory at the start, after the last stream, and a minute later, MiB. */
	readonly freshMib: number;
	readonly lastMib: number;
	readonly idleMib: number;
	readonly streams: number;
	/** Streams so far, and the memory then, MiB. */
	readonly course: readonly (readonly [number, number])[];
}

/** Runs the streams through one tree's program. */
function soak(name: string): Promise<Soaked> {
	// A file of its own, whose pages no other process shares.
	const node = path.join(folder, `node-${name}`);
	cpSync(process.execPath, node);
	return withTargets(
		stage,
		async (targets, notes) => {
			const { port, pids } = targets.find((one) => one.name === name) ?? {};
			if (port === undefined) throw new Error(notes.join("\n"));
			const mebibytes = () =>
				(pids ?? []).reduce((sum, pid) => sum + proportionalBytes(pid), 0) /
				2 ** 20;
			const freshMib = mebibytes();
			const course: [number, number][] = [];
			let streams = 0;
			while (streams < wanted) {
				const { received, lost } = await runLoad<StreamTimes>(stage.native, {
					...{ mode: "streams", port, key, streams: atOnce, tokens },
					...{ intervalUs: 1_000, cold: 0, warmUpMs: 0, measureMs: stepMs },
				});
				if (lost > 0) throw new Error(`${lost} streams were cut`);
				streams += received / tokens;
				course.push([streams, mebibytes()]);
				stage.progress(
					`${name}: ${whole(streams)} of ${whole(wanted)} streams, ${fixed(mebibytes(), 1)} MiB`,
				);
			}
			const lastMib = mebibytes();
			await delay(idleMs);
			const idleMib = mebibytes();
			stage.progress(`${name}: ${fixed(idleMib, 1)} MiB when idle`);
			return { freshMib, lastMib, idleMib, streams, course };
		},
		{ names: [name], gate: { node } },
	);
}

try {
	const machine = describeMachine(stage);
	const names = baseline === undefined ? ["gate"] : ["gate", "against"];
	// Side by side: whatever else the machine does meanwhile, it does to both.
	const soaked = new Map(
		await Promise.all(
			names.map(async (name) => [name, await soak(name)] as const),
		),
	);
	const own = soaked.get("gate");
	const other = soaked.get("against");
	const row = (title: string, pick: (one: Soaked) => number, goal?: number) =>
		own === undefined
			? [title]
			: comparedRow(title, pick(own), other && pick(other), 1, goal);
	const section: Section = {
		name: "soak, installed",
		title: `The published program: memory after ${whole(wanted)} streams`,
		notes: [
			`PSS of the process, from a copy of Node that no other process shares; streams of ${tokens} tokens, ${atOnce} at a time, and then ${idleMs / 1_000} s of nothing`,
			describeBriefly(machine),
			...(baseline === undefined
				? []
				: [`beside it, at the same time, ${path.basename(baseline)}`]),
		],
		head: ["MiB", ...names, "ratio", "goal", ""],
		rows: [
			row("before the first stream", ({ freshMib }) => freshMib),
			row("after the last", ({ lastMib }) => lastMib),
			row("idle again", ({ idleMib }) => idleMib, most),
		],
		figures: {},
		data: Object.fromEntries(soaked),
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

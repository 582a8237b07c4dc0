import { rmSync } from "node:fs";
import { mkdtemp, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { renderReport, writeDocuments } from "./document.ts";
import { describeMachine, foreignCpuShare, readCpuTimes } from "./machine.ts";
import { compile } from "./native.ts";
import { stopAll } from "./processes.ts";
import type { Section } from "./report.ts";
import type { Stage } from "./targets.ts";
import { bulk } from "./workloads/bulk.ts";
import { cancel } from "./workloads/cancel.ts";
import { flood } from "./workloads/flood.ts";
import { hostile } from "./workloads/hostile.ts";
import { memory } from "./workloads/memory.ts";
import { refusals, requests } from "./workloads/requests.ts";
import { scale } from "./workloads/scale.ts";
import { soak } from "./workloads/soak.ts";
import { startup } from "./workloads/startup.ts";
import { streams } from "./workloads/streams.ts";

const workloads: Record<string, (stage: Stage) => Promise<Section[]>> = {
	requests,
	streams,
	bulk,
	refusals,
	flood,
	hostile,
	cancel,
	memory,
	startup,
	...scale,
	soak,
};

const help = `
Usage: npm run bench -- [--quick] [--only NAME] [--docs] [--json FILE] [--against DIR] [--no-peer-log]

Measures the gate beside no gate and, where they are installed, nginx, HAProxy
and Caddy, over loopback. Load and upstream are C: it takes gcc and libc6-dev.
A Markdown report goes to stdout, progress to stderr.

  --quick        short rounds: some three minutes, and noisier
  --only NAME    one of ${Object.keys(workloads).join(", ")}; may stand twice
  --docs         writes docs/performance.md, its plots and its figures; what was
                 not measured this time stays
  --json FILE    the figures behind the tables as well
  --against DIR  another llamagate tree, built where it is older than scripts/build,
                 measured in the same rounds
  --no-peer-log  the peers write no access log (the gate always writes its own)
`;

function readOptions() {
	return parseArgs({
		options: {
			quick: { type: "boolean", default: false },
			only: { type: "string", multiple: true },
			docs: { type: "boolean", default: false },
			json: { type: "string" },
			against: { type: "string" },
			"no-peer-log": { type: "boolean", default: false },
			help: { type: "boolean", short: "h", default: false },
		},
	}).values;
}

async function main(): Promise<number> {
	let values: ReturnType<typeof readOptions>;
	try {
		values = readOptions();
	} catch (error) {
		process.stderr.write(`${error instanceof Error ? error.message : error}\n`);
		return 2;
	}
	const names = values.only ?? Object.keys(workloads);
	const unknown = names.find((name) => !(name in workloads));
	if (values.help || unknown !== undefined) {
		if (unknown !== undefined)
			process.stderr.write(`there is no workload "${unknown}"\n`);
		(unknown === undefined ? process.stdout : process.stderr).write(help);
		return unknown === undefined ? 0 : 2;
	}

	const folder = await mkdtemp(path.join(tmpdir(), "llamagate-bench-"));
	process.once("exit", () => rmSync(folder, { recursive: true, force: true }));
	const startedAt = performance.now();
	const stage: Stage = {
		quick: values.quick,
		folder,
		native: compile(folder),
		against: values.against,
		peerLog: !values["no-peer-log"],
		progress(text) {
			const seconds = (performance.now() - startedAt) / 1000;
			process.stderr.write(`${seconds.toFixed(0).padStart(4)} s  ${text}\n`);
		},
	};
	const machine = describeMachine(stage);
	const cpuBefore = readCpuTimes();
	const sections: Section[] = [];
	try {
		for (const name of names) {
			stage.progress(name);
			const run = workloads[name];
			try {
				sections.push(...((await run?.(stage)) ?? []));
			} catch (error) {
				const why = error instanceof Error ? error.message : String(error);
				sections.push({
					name,
					title: name,
					notes: [`not measured: ${why}`],
					head: [],
					rows: [],
					figures: {},
					data: null,
				});
			}
		}
	} finally {
		await stopAll();
	}

	const tookSeconds = (performance.now() - startedAt) / 1000;
	machine.push(
		["took", `${tookSeconds.toFixed(0)} s`],
		["CPU used by others meanwhile", foreignCpuShare(cpuBefore)],
	);
	process.stdout.write(
		`# llamagate bench\n\n${renderReport(machine, sections)}`,
	);
	if (values.docs)
		await writeDocuments(
			fileURLToPath(new URL("../docs", import.meta.url)),
			machine,
			sections,
		);
	if (values.json !== undefined)
		await writeFile(
			values.json,
			`${JSON.stringify({ machine: Object.fromEntries(machine), sections }, undefined, "\t")}\n`,
		);
	return 0;
}

for (const [signal, code] of [
	["SIGINT", 130],
	["SIGTERM", 143],
] as const)
	process.once(signal, () => void stopAll().then(() => process.exit(code)));

process.exitCode = await main();

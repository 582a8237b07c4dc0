import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { writeDocuments } from "./document.ts";
import { describeBriefly, describeMachine } from "./machine.ts";
import { compile } from "./native.ts";
import { stopAll, stopAllOnSignals } from "./processes.ts";
import { fixed } from "./report.ts";
import type { Stage } from "./targets.ts";
import { hostile } from "./workloads/hostile.ts";

const help = `
Usage: node bench/hostile.ts [--baseline DIR] [--quick] [--only WORDS] [--docs]

What others feel of hostile loads on the gate, each a few seconds, over loopback:
running streams, new requests with a good key, and the gate's memory. All in one
table; needs gcc and libc6-dev.

  --baseline DIR  another llamagate tree, built where it is older than scripts/build,
                  measured in the same rounds
  --quick         one short round each
  --only WORDS    loads whose name has these words
  --docs          puts the tables into docs/performance.md
`;

const { values } = parseArgs({
	options: {
		baseline: { type: "string" },
		quick: { type: "boolean", default: false },
		only: { type: "string" },
		docs: { type: "boolean", default: false },
		help: { type: "boolean", short: "h", default: false },
	},
});
if (values.help) {
	process.stdout.write(help);
	process.exit(0);
}
stopAllOnSignals();

const folder = await mkdtemp(path.join(tmpdir(), "llamagate-hostile-"));
try {
	const { only } = values;
	const stage: Stage = {
		quick: values.quick,
		folder,
		native: compile(folder),
		against: values.baseline,
		peerLog: true,
		hostileOnly:
			only === undefined ? undefined : { test: (name) => name.includes(only) },
		progress: (text) => process.stderr.write(`${text}\n`),
	};
	const machine = describeMachine(stage);
	const sections = await hostile(stage);
	process.stdout.write(
		"| load | tree | stream p99 calm, ms | attacked | new request p95, ms | worst | not served | core used calm | attacked | memory grown, MiB | beyond a body that is judged |\n| --- | --- | --: | --: | --: | --: | --: | --: | --: | --: | --: |\n",
	);
	for (const { name, rows } of sections)
		for (const row of rows)
			process.stdout.write(
				`| ${name.replace("hostile, ", "")} | ${row.join(" | ")} |\n`,
			);
	const worst = (figure: string) =>
		Math.max(...sections.map(({ figures }) => figures.gate?.[figure] ?? 0));
	process.stdout.write(
		`\nat worst: stream p99 moved by ${fixed(worst("moved99"))} ms (goal 5), new request ${fixed(worst("newWorst"))} ms (goal 100), memory beyond a body that is judged ${fixed(Math.max(0, worst("beyondBodies")), 0)} MiB (goal 64)\n`,
	);
	if (values.docs)
		await writeDocuments(
			fileURLToPath(new URL("../docs", import.meta.url)),
			undefined,
			sections.map((section) => ({
				...section,
				notes: [describeBriefly(machine), ...section.notes],
			})),
		);
} finally {
	await stopAll();
	await rm(folder, { recursive: true, force: true });
}

import { parseArgs } from "node:util";
import { type PolicyName, policies } from "./queue/policies.ts";
import { simulate } from "./queue/simulate.ts";
import { type Trace, traces } from "./queue/traces.ts";
import { fixed, renderSection, whole } from "./report.ts";

const help = `
Usage: node bench/queue-sim.ts [--trace NAME] [--seed N] [--room N] [--parallel N] [--load SECONDS]

What the gate's queue would make of traces of users and models, in simulated
time: waits, parts of the GPU and loads, beside Ollama without a queue and one
queue for all in the order of arrival. The parts of src/queue that decide are
the real ones; Ollama is its scheduler, simulated, and models that are loaded beside
each other do not slow each other down. The same for one seed.

  --trace NAME     one of ${Object.keys(traces).join(", ")}; may stand twice
  --seed N         another course of all traces (1)
  --room N         how many models fit into memory, in place of the trace's
  --parallel N     requests that a model serves at once, in place of the trace's
  --load SECONDS   how long a load takes, in place of the trace's
`;

const { values } = parseArgs({
	options: {
		trace: { type: "string", multiple: true },
		seed: { type: "string", default: "1" },
		room: { type: "string" },
		parallel: { type: "string" },
		load: { type: "string" },
		help: { type: "boolean", short: "h", default: false },
	},
});
const known: Readonly<Record<string, Trace>> = traces;
const names = values.trace ?? Object.keys(traces);
const unknown = names.find((name) => !(name in traces));
if (values.help || unknown !== undefined) {
	if (unknown !== undefined)
		process.stderr.write(`there is no trace "${unknown}"\n`);
	(values.help ? process.stdout : process.stderr).write(help);
	process.exit(values.help ? 0 : 2);
}

for (const name of names) {
	const trace = known[name];
	if (trace === undefined) continue;
	const gpu = {
		room: Number(values.room ?? trace.gpu.room),
		parallel: Number(values.parallel ?? trace.gpu.parallel),
		loadMs: 1000 * Number(values.load ?? trace.gpu.loadMs / 1000),
	};
	const rows: string[][] = [];
	const took: string[] = [];
	for (const policy of Object.keys(policies) as PolicyName[]) {
		const startedAt = performance.now();
		const { groups, loads, usedShare } = simulate(
			{ ...trace, gpu },
			policy,
			Number(values.seed),
		);
		took.push(fixed((performance.now() - startedAt) / 1000));
		for (const [index, [group, one]] of Object.entries(groups).entries())
			rows.push([
				...[index === 0 ? policy : "", group, whole(one.requests)],
				...[fixed(one.wait50, 2), fixed(one.wait95, 2), fixed(one.worst, 2)],
				`${fixed(100 * one.gpuShare)} %`,
				...(index === 0 ? [whole(loads), `${fixed(100 * usedShare)} %`] : []),
			]);
	}
	const section = renderSection({
		...{ name, title: trace.title, figures: {}, data: null },
		notes: [
			`${whole(trace.seconds)} s; room for ${gpu.room} model(s), ${gpu.parallel} request(s) at once, a load takes ${gpu.loadMs / 1000} s`,
			`simulated in ${took.join(", ")} s`,
		],
		head: [
			...["", "who", "requests", "wait p50, s", "p95", "worst"],
			...["of the GPU", "loads", "slots used"],
		],
		rows,
	});
	process.stdout.write(`${section}\n`);
}

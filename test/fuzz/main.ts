import { Coverage } from "./coverage.ts";

/**
 * Fuzzes for a while: `npm run fuzz`. FUZZ_SECONDS says how long (60), FUZZ_SEED
 * repeats a run. The corpus of each target is written anew and can be committed.
 */

// Before anything that is to be counted is imported.
const coverage = new Coverage();
const { targets } = await import("./targets.ts");
const { fuzzGuided } = await import("./guided.ts");
const { fuzzRequests } = await import("./differential.ts");
const { startWire } = await import("../support/wire.ts");
const { chooseSeed, Random } = await import("./random.ts");

const say = (text: string) => process.stdout.write(`${text}\n`);
const seconds = Number(process.env.FUZZ_SECONDS ?? 60);
const seed = chooseSeed();
say(`FUZZ_SEED=${seed} FUZZ_SECONDS=${seconds}`);
const shareMs = (seconds * 1000) / (targets.length + 2);
let failed = false;
for (const target of targets) {
	const { runs, failure } = fuzzGuided(
		target,
		coverage,
		new Random(seed),
		performance.now() + shareMs,
	);
	say(`${target.name}: ${runs} runs`);
	if (failure === undefined) continue;
	failed = true;
	say(`${failure.message}: ${JSON.stringify(failure.input)}`);
}

const teardowns: (() => unknown)[] = [];
const wire = await startWire({
	teardown: (action) => teardowns.unshift(action),
});
const endMs = performance.now() + 2 * shareMs;
const run = await fuzzRequests(wire, seed, () => performance.now() > endMs);
say(`requests: ${run.cases}, of which ${run.forwarded} went through`);
for (const { number, bytes, faults } of run.disagreements) {
	failed = true;
	say(`${number}: ${faults.join("; ")}: ${JSON.stringify(bytes)}`);
}
for (const action of teardowns) await action();
process.exitCode = failed ? 1 : 0;

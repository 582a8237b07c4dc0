import { execFileSync } from "node:child_process";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { startWire } from "../support/wire.ts";
import { suites } from "./checkouts.ts";
import { exceptions } from "./exceptions.ts";
import { judgeBoth, type Score } from "./judge.ts";

/**
 * Runs the suites of other projects against the gate and writes down how it
 * did: `npm run conformance -- FOLDER`, where FOLDER has a checkout of each
 * repository under its own name.
 */

const [folder] = process.argv.slice(2);
if (folder === undefined) {
	process.stderr.write(
		`Say where the checkouts are: npm run conformance -- FOLDER, with ${Object.keys(suites).join(", ")} in it\n`,
	);
	process.exit(2);
}
const file = new URL("scores.json", import.meta.url);
const scores = JSON.parse(readFileSync(file, "utf8")) as Record<string, Score>;
const teardowns: (() => unknown)[] = [];
const wire = await startWire({
	teardown: (action) => teardowns.unshift(action),
});
let unexplained = 0;
for (const [name, suite] of Object.entries(suites)) {
	const checkout = path.join(folder, name);
	if (!existsSync(checkout)) {
		process.stdout.write(`${name}: not there, its score stays as it was\n`);
		continue;
	}
	const counts: { -readonly [K in keyof Score["counts"]]: Score["counts"][K] } =
		{};
	const excused = new Map(Object.entries(exceptions[name] ?? {}));
	let held = 0;
	const cases = suite.read(checkout);
	for (const one of cases) {
		const verdict = await judgeBoth(wire, one, suite.leavesHostOut);
		const count = counts[one.label];
		counts[one.label] = {
			...count,
			[verdict.outcome]: (count?.[verdict.outcome] ?? 0) + 1,
		};
		if (verdict.held) held += 1;
		else if (!excused.delete(one.id)) {
			unexplained += 1;
			process.stdout.write(
				`${name} ${one.id}, ${one.label}: ${verdict.account}\n`,
			);
		}
	}
	for (const id of excused.keys()) {
		unexplained += 1;
		process.stdout.write(`${name} ${id}: needs no exception any more\n`);
	}
	const commit = execFileSync("git", ["-C", checkout, "rev-parse", "HEAD"], {
		encoding: "utf8",
	}).trim();
	scores[name] = { commit, counts, held, total: cases.length };
	process.stdout.write(`${name}: ${held} of ${cases.length} held\n`);
}
for (const action of teardowns) await action();
if (unexplained === 0)
	writeFileSync(file, `${JSON.stringify(scores, undefined, "\t")}\n`);
process.exitCode = unexplained === 0 ? 0 : 1;

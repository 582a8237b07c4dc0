import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { isDeepStrictEqual } from "node:util";
import { areas, type Entry } from "./record.ts";

/**
 * Holds what a run has recorded beside docs/compatibility.json: `node
 * test/real/compatibility.ts --check` says what is no longer so and ends with
 * 1; `--record` writes it. With `--whole` all tests have run, so that what is
 * not recorded is gone.
 */

const file = new URL("../../docs/compatibility.json", import.meta.url);

/** The entries of the committed file, in its order. */
export function compatibilityEntries(): readonly Entry[] {
	return JSON.parse(readFileSync(file, "utf8")) as readonly Entry[];
}

const keyOf = ({ area, name, version }: Entry) =>
	`${areas.indexOf(area)} ${name} ${version}`;

function recorded(folder: string): Entry[] {
	return readdirSync(folder).map(
		(name) => JSON.parse(readFileSync(`${folder}/${name}`, "utf8")) as Entry,
	);
}

function main(options: readonly string[]): void {
	const folder = process.env.LLAMAGATE_RESULTS;
	if (folder === undefined) throw new Error("this is run by test/real/run");
	const found = new Map(recorded(folder).map((entry) => [keyOf(entry), entry]));
	const known = new Map(
		compatibilityEntries().map((entry) => [keyOf(entry), entry]),
	);
	const merged = options.includes("--whole")
		? found
		: new Map([...known, ...found]);
	if (options.includes("--record")) {
		const sorted = [...merged].sort(([a], [b]) => (a < b ? -1 : 1));
		const text = JSON.stringify(
			sorted.map(([, entry]) => entry),
			undefined,
			"\t",
		);
		writeFileSync(file, `${text}\n`);
		console.log("docs/compatibility.json is written; now: npm run docs");
		return;
	}
	const changed = [...new Set([...known.keys(), ...merged.keys()])].filter(
		(key) => !isDeepStrictEqual(known.get(key), merged.get(key)),
	);
	for (const key of changed)
		console.error(
			`docs/compatibility.json says otherwise of ${key.replace(/^\d+ /, "")}:\n  it says  ${JSON.stringify(known.get(key))}\n  this run ${JSON.stringify(merged.get(key))}`,
		);
	if (changed.length === 0) return;
	console.error("Run: npm run test:real -- --record && npm run docs");
	process.exitCode = 1;
}

if (import.meta.main) main(process.argv.slice(2));

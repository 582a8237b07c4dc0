import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";

/** What a run is about, in the order of docs/compatibility.md. */
export const areas = ["ollama", "tailnet", "clients"] as const;
export type Area = (typeof areas)[number];

/** What was run, and what it showed. */
export interface Finding {
	/** Of the program that was run beside the gate. */
	readonly version: string;
	/** What was run, each a phrase; the same words in every run. */
	readonly ran: readonly string[];
	/** What it does otherwise than its documents, than another version or than without the gate, each a sentence; the same in every run. */
	readonly differs: readonly string[];
}

/** A finding as the results folder and docs/compatibility.json have it. */
export interface Entry extends Finding {
	readonly area: Area;
	readonly name: string;
}

/**
 * Writes down for docs/compatibility.md what a test has run. One entry for each
 * area and name; the test calls this at its end, so that only what passed counts.
 *
 * @param name the program's, as a person knows it: `Ollama`, `openai (npm)`; a
 *   second test of one program adds its subject: `Ollama, behind the gate`
 */
export function record(area: Area, name: string, finding: Finding): void {
	const folder = process.env.LLAMAGATE_RESULTS;
	if (folder === undefined)
		throw new Error("run this test by npm run test:real -- FILE");
	mkdirSync(folder, { recursive: true });
	const { version, ran, differs } = finding;
	const entry: Entry = { area, name, version, ran, differs };
	const file = `${area} ${name} ${version}.json`.replaceAll("/", "-");
	writeFileSync(path.join(folder, file), JSON.stringify(entry));
}

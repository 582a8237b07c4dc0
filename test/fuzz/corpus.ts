import { readFileSync, writeFileSync } from "node:fs";
import type { Target } from "./targets.ts";

/** Inputs that once reached something new, or broke something: one JSON list a target. */
const fileOf = ({ name }: Target) =>
	new URL(`corpus/${name}.json`, import.meta.url);

export function readCorpus(target: Target): string[] {
	return JSON.parse(readFileSync(fileOf(target), "utf8")) as string[];
}

export function writeCorpus(target: Target, inputs: readonly string[]): void {
	writeFileSync(fileOf(target), `${JSON.stringify(inputs, undefined, "\t")}\n`);
}

/**
 * The input, and the input grown as large as it may come: what takes more than
 * linear time for it does not come to an end before its test's time does.
 */
export function runGrown(target: Target, input: string): void {
	target.run(input);
	if (input === "") return;
	const half = Math.floor(input.length / 2);
	const tail = input.slice(half);
	const grown = Math.floor((target.maxBytes - input.length) / tail.length);
	if (grown > 0) target.run(input + tail.repeat(grown));
}

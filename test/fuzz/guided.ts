import { mutate } from "./bytes.ts";
import { readCorpus, runGrown, writeCorpus } from "./corpus.ts";
import type { Coverage } from "./coverage.ts";
import type { Random } from "./random.ts";
import type { Target } from "./targets.ts";

/** Asking V8 costs more than a run, so it is asked once for so many. */
const batchSize = 64;
const longestMutant = 2_000;

/** An input for which something does not hold. */
export interface Failure {
	readonly target: string;
	readonly input: string;
	readonly message: string;
}

/**
 * Goes on from a target's corpus until the time is over or something breaks:
 * mutants that reach new blocks join the corpus, and what none needs any more
 * leaves it.
 */
export function fuzzGuided(
	target: Target,
	coverage: Coverage,
	random: Random,
	untilMs: number,
): { readonly runs: number; readonly failure?: Failure } {
	const seen = new Set<string>();
	const corpus: string[] = [];
	const reachesNew = () => {
		let isNew = false;
		for (const block of coverage.take(target.files)) {
			if (seen.has(block)) continue;
			seen.add(block);
			isNew = true;
		}
		return isNew;
	};
	let runs = 0;
	const attempt = (input: string, grown: boolean): Failure | undefined => {
		runs += 1;
		try {
			if (grown) runGrown(target, input);
			else target.run(input);
			return undefined;
		} catch (error) {
			return { target: target.name, input, message: (error as Error).message };
		}
	};
	const keepIfNew = (input: string): Failure | undefined => {
		const failure = attempt(input, false);
		if (failure !== undefined || !reachesNew()) return failure;
		corpus.push(input);
		const slow = attempt(input, true);
		coverage.take(target.files);
		return slow;
	};
	coverage.take(target.files);
	const known = readCorpus(target);
	// The shortest first: what a longer one adds is then worth its length.
	for (const input of [...target.seeds, ...known].sort(
		(one, other) => one.length - other.length,
	)) {
		const failure = keepIfNew(input);
		if (failure !== undefined) return { runs, failure };
	}
	/** Runs inputs together, and finds by halves those that reach something new. */
	const search = (inputs: readonly string[]): Failure | undefined => {
		const [only] = inputs;
		if (inputs.length === 1 && only !== undefined) return keepIfNew(only);
		for (const input of inputs) {
			const failure = attempt(input, false);
			if (failure !== undefined) return failure;
		}
		const reached = [...coverage.take(target.files)];
		if (reached.every((block) => seen.has(block))) return undefined;
		const half = Math.ceil(inputs.length / 2);
		const failure = search(inputs.slice(0, half)) ?? search(inputs.slice(half));
		// What only all of them together ran so often is not looked for again.
		for (const block of reached) seen.add(block);
		return failure;
	};
	while (performance.now() < untilMs) {
		const failure = search(
			Array.from({ length: batchSize }, () =>
				mutate(random.pick(corpus), corpus, target.dictionary, random).slice(
					0,
					longestMutant,
				),
			),
		);
		if (failure !== undefined) return { runs, failure };
	}
	writeCorpus(
		target,
		corpus.filter((input) => !target.seeds.includes(input)),
	);
	return { runs };
}

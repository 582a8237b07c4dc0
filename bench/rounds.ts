import type { Stage, Target } from "./targets.ts";

/** What was measured of one target, or why it was not. */
export type Samples<T> =
	| { readonly target: Target; readonly samples: readonly T[] }
	| { readonly target: Target; readonly failure: string };

/**
 * Measures every target in every round, so that a machine that slows down
 * slows all of them down. Each round begins with another target.
 */
export async function interleave<T>(
	stage: Stage,
	targets: readonly Target[],
	rounds: number,
	label: string,
	measure: (target: Target) => Promise<T>,
): Promise<Samples<T>[]> {
	const samples = new Map<Target, T[]>();
	const failures = new Map<Target, string>();
	for (let round = 0; round < rounds; round++) {
		stage.progress(`${label}, round ${round + 1} of ${rounds}`);
		for (let turn = 0; turn < targets.length; turn++) {
			const target = targets[(round + turn) % targets.length];
			if (target === undefined || failures.has(target)) continue;
			try {
				const sample = await measure(target);
				samples.set(target, [...(samples.get(target) ?? []), sample]);
			} catch (error) {
				const why = error instanceof Error ? error.message : String(error);
				failures.set(target, `not measured: ${why}`);
				stage.progress(`${target.name} was not measured: ${why}`);
			}
		}
	}
	return targets.map((target) => {
		const failure = failures.get(target);
		return failure === undefined
			? { target, samples: samples.get(target) ?? [] }
			: { target, failure };
	});
}

/**
 * Does the work several times with processes that are started anew: two starts
 * of one Node program differ by up to a fifth in what a request costs them.
 */
export async function freshStarts<T>(
	count: number,
	work: () => Promise<Samples<T>[]>,
): Promise<Samples<T>[]> {
	const starts: Samples<T>[][] = [];
	for (let i = 0; i < count; i++) starts.push(await work());
	const names = new Set(starts.flat().map(({ target }) => target.name));
	return [...names].flatMap((name) => {
		const same = starts.flat().filter(({ target }) => target.name === name);
		const failed = same.find((one) => "failure" in one);
		const [first] = same;
		if (failed !== undefined || first === undefined) return failed ?? [];
		const samples = same.flatMap((one) =>
			"samples" in one ? one.samples : [],
		);
		return { target: first.target, samples };
	});
}

/** The figures of one target by name, if it was measured. */
export function samplesOf<T>(
	all: readonly Samples<T>[],
	name: string,
): readonly T[] | undefined {
	const found = all.find(({ target }) => target.name === name);
	return found !== undefined && "samples" in found ? found.samples : undefined;
}

/** For `--json`. */
export function toData<T>(all: readonly Samples<T>[]): unknown {
	return Object.fromEntries(
		all.map((one) => [
			one.target.name,
			"samples" in one ? one.samples : one.failure,
		]),
	);
}

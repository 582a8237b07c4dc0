import type { Stage, Target } from "./targets.ts";

/** What was measured of one target, or why it was not. */
export type Samples<T> =
	| {
			readonly target: Target;
			readonly samples: readonly T[];
			/** Why it was not measured in the rounds that gave no sample. */
			readonly failures?: readonly string[];
	  }
	| { readonly target: Target; readonly failure: string };

/**
 * Measures one target after the other.
 *
 * @param round whose turn it is first; each round begins with another target
 */
export async function measureEach<T>(
	stage: Stage,
	targets: readonly Target[],
	round: number,
	label: string,
	measure: (target: Target) => Promise<T>,
): Promise<Samples<T>[]> {
	stage.progress(label);
	const first = round % targets.length;
	const measured: Samples<T>[] = [];
	for (const target of [...targets.slice(first), ...targets.slice(0, first)]) {
		try {
			measured.push({ target, samples: [await measure(target)] });
		} catch (error) {
			const why = error instanceof Error ? error.message : String(error);
			measured.push({ target, failure: `not measured: ${why}` });
			stage.progress(`${target.name} was not measured: ${why}`);
		}
	}
	const place = ({ target }: Samples<T>) => targets.indexOf(target);
	return measured.sort((a, b) => place(a) - place(b));
}

/**
 * Does the work several times with processes that are started anew, since two
 * starts of one Node program differ by up to a fifth in what a request costs
 * them; a machine that slows down meanwhile slows every target down.
 */
export async function freshStarts<T>(
	count: number,
	work: (round: number) => Promise<Samples<T>[]>,
): Promise<Samples<T>[]> {
	const all: Samples<T>[] = [];
	for (let round = 0; round < count; round++) all.push(...(await work(round)));
	return mergeRounds(all);
}

/** One entry for each target, with what every round measured of it; it has failed if all rounds have. */
export function mergeRounds<T>(all: readonly Samples<T>[]): Samples<T>[] {
	const names = new Set(all.map(({ target }) => target.name));
	return [...names].flatMap((name) => {
		const same = all.filter(({ target }) => target.name === name);
		const [first] = same;
		if (first === undefined) return [];
		const samples = same.flatMap((one) =>
			"samples" in one ? one.samples : [],
		);
		if (samples.length === 0) return first;
		const failures = same.flatMap((one) =>
			"failure" in one ? [one.failure] : [],
		);
		return { target: first.target, samples, failures };
	});
}

/** A note for each target that some rounds could not measure. */
export function failureNotes(all: readonly Samples<unknown>[]): string[] {
	return all.flatMap((one) =>
		"samples" in one && one.failures?.[0] !== undefined
			? [
					`${one.target.name}: ${one.failures.length} start(s) left out, ${one.failures[0]}`,
				]
			: [],
	);
}

/** The figures of one target by name, if it was measured. */
export function samplesOf<T>(
	all: readonly Samples<T>[],
	name: string,
): readonly T[] | undefined {
	const found = all.find(({ target }) => target.name === name);
	return found !== undefined && "samples" in found ? found.samples : undefined;
}

/** What the samples of each measured target come to, by the target's name. */
export function figuresOf<T>(
	all: readonly Samples<T>[],
	summarize: (samples: readonly T[]) => Record<string, number>,
): Record<string, Record<string, number>> {
	return Object.fromEntries(
		all.flatMap((one) =>
			"samples" in one ? [[one.target.name, summarize(one.samples)]] : [],
		),
	);
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

import { askedOnce, inOneLook } from "../host/askedOnce.ts";
import type { Installation } from "../host/installation.ts";
import type { stepIds } from "../host/steps.ts";
import type { Check, Result } from "../report/result.ts";

/** What a check may look at. */
export interface Patient {
	readonly installation: Installation;
	/** The configuration that the gate runs with. */
	readonly configFile: string;
	/** Without root much is not to be seen; a check that needs it answers `unknown` and says so. */
	readonly isRoot: boolean;
	/** Epoch milliseconds. */
	readonly nowMs: number;
	/** A good key of the gate, where one was given to try. It is never shown. */
	readonly key?: string;
}

/** What was seen. */
export type Outcome = Pick<Result, "state" | "evidence"> & {
	/** In place of the check's own, where what was seen says better what to do. */
	readonly fix?: string;
	/** In place of the check's own, where what was seen is better or worse than that. */
	readonly severity?: Check["severity"];
};

/** A check of `llamagate doctor`, and how it looks. */
export interface Examination extends Check {
	/** The command that mends what it finds. */
	readonly fix: string;
	/** The step of setup that mends it, for `--fix`; absent where none does. */
	readonly step?: (typeof stepIds)[number];
	/** Whether nothing is to be seen without root. */
	readonly needsRoot?: boolean;
	/** Looks, and changes nothing. What it throws is told as `unknown`. */
	examine(patient: Patient): Promise<Outcome>;
}

export function ok(...evidence: string[]): Outcome {
	return { state: "ok", evidence };
}

export function finding(
	evidence: readonly string[],
	better: Pick<Outcome, "fix" | "severity"> = {},
): Outcome {
	return { state: "finding", evidence, ...better };
}

export function absent(...evidence: string[]): Outcome {
	return { state: "absent", evidence };
}

export function unknown(...why: string[]): Outcome {
	return { state: "unknown", evidence: why };
}

/** What several checks want to know of a host: the first that asks finds it out, for all in a look. */
export function oncePerLook<T>(
	find: (patient: Patient) => Promise<T>,
): (patient: Patient) => Promise<T> {
	return (patient) => askedOnce(find, () => find(patient));
}

/** How long one check may take. */
const patienceMs = 45_000;

/**
 * Makes all checks at once, in one look at the host. One that throws, takes too
 * long, or needs root where there is none is `unknown`, with the reason: it
 * never passes.
 */
export function examineAll(
	examinations: readonly Examination[],
	patient: Patient,
): Promise<Result[]> {
	return inOneLook(() =>
		Promise.all(
			examinations.map((examination) => examineOne(examination, patient)),
		),
	);
}

async function examineOne(
	{ examine, needsRoot, step: _, ...check }: Examination,
	patient: Patient,
): Promise<Result> {
	const outcome =
		needsRoot && !patient.isRoot
			? unknown("only root can see this; run: sudo llamagate doctor")
			: await inTime(examine(patient)).catch((error: unknown) =>
					unknown(error instanceof Error ? error.message : String(error)),
				);
	return { ...check, ...outcome };
}

async function inTime(looking: Promise<Outcome>): Promise<Outcome> {
	let timer: NodeJS.Timeout | undefined;
	const late = new Promise<Outcome>((resolve) => {
		timer = setTimeout(
			() => resolve(unknown(`no answer in ${patienceMs / 1000} s`)),
			patienceMs,
		);
	});
	try {
		return await Promise.race([looking, late]);
	} finally {
		clearTimeout(timer);
	}
}

/** Lines of evidence or commands, each once. */
export function unique(lines: readonly string[]): string[] {
	return [...new Set(lines)];
}

import type { Check, Result } from "../report/result.ts";
import type { StepId } from "../setup/step.ts";
import type { Installation } from "../system/installation.ts";
import { askedOnce, inOneLook } from "../system/memo.ts";

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
	/** In place of the check's own, where what was seen says better what to do; for `unknown`, how to find out. */
	readonly fix?: string;
	/** In place of the check's own, where what was seen is better or worse than that. */
	readonly severity?: Check["severity"];
};

/** A check of `llamagate doctor`, and how it looks. */
export interface Examination extends Check {
	/** The command that mends what it finds. */
	readonly fix: string;
	/** The step of setup that mends it, for `--fix`; absent where none does. */
	readonly step?: StepId;
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
	{ examine, needsRoot, step: _, fix: repair, ...check }: Examination,
	patient: Patient,
): Promise<Result> {
	const outcome =
		needsRoot && !patient.isRoot
			? unknown("only root can see this")
			: await inTime(examine(patient)).catch((error: unknown) =>
					unknown(error instanceof Error ? error.message : String(error)),
				);
	const fix =
		outcome.fix ??
		(outcome.state === "finding"
			? repair
			: outcome.state === "unknown"
				? howToFindOut(outcome.evidence)
				: undefined);
	return { ...check, ...outcome, ...(fix === undefined ? {} : { fix }) };
}

/** What to do to see what was not seen, as far as the reason tells. What mends a finding would be a guess here. */
export function howToFindOut(evidence: readonly string[]): string | undefined {
	const text = evidence.join("\n");
	if (/\bonly root\b/.test(text)) return "sudo llamagate doctor";
	const [install] = /sudo apt install [a-z0-9-]+/.exec(text) ?? [];
	if (install !== undefined) return install;
	const [, id] = /; see ([a-z0-9-]+\.[a-z0-9-]+)/.exec(text) ?? [];
	if (id !== undefined) return `sudo llamagate doctor --explain ${id}`;
	const [, command] = /; see: (.+)$/m.exec(text) ?? [];
	if (command !== undefined) return command;
	if (/system(?:d|ctl) does not answer/.test(text))
		return "look at this on the host itself, where systemd runs (in a container it does not): systemctl status";
	return undefined;
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

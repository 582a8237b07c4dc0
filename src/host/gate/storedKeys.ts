import {
	absent,
	type Outcome,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import { loadKeys } from "../../keys/keyFile.ts";
import { runProgram } from "../../system/run.ts";
import { exists, filesOf } from "./files.ts";
import { askGate, noUnit, gateService as service } from "./inspect.ts";
import {
	judgeCanaries,
	judgeLifetimes,
	judgeRotation,
	judgeUse,
	readCanaryUses,
} from "./keys.ts";

/** Judges the keys of the configured file. */
async function withKeys(
	patient: Patient,
	judge: (
		keys: Awaited<ReturnType<typeof loadKeys>>,
	) => Outcome | Promise<Outcome>,
): Promise<Outcome> {
	const files = await filesOf(patient);
	if (!(await exists(files.keys)))
		return absent(`${files.keys} does not exist`);
	try {
		return await judge(await loadKeys(files.keys));
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return unknown(error.message);
	}
}

/** Whether a key has expired or is about to. */
export const examineLifetimes = (patient: Patient): Promise<Outcome> =>
	withKeys(patient, (keys) => judgeLifetimes(keys, patient.nowMs));

/** Whether a key is older than a year. */
export const examineRotation = (patient: Patient): Promise<Outcome> =>
	withKeys(patient, (keys) => judgeRotation(keys, patient.nowMs));

/** Whether every key is in use, as far as the running gate tells. */
export const examineUse = (patient: Patient): Promise<Outcome> =>
	withKeys(patient, async (keys) => {
		const asked = await askGate(patient);
		return asked.kind === "status"
			? judgeUse(keys, asked.status, patient.nowMs)
			: unknown(asked.why);
	});

/** Whether the journal has a use of a canary key. */
export async function examineCanaries(patient: Patient): Promise<Outcome> {
	const missing = await noUnit();
	if (missing !== undefined) return missing;
	const { code, stdout, stderr } = await runProgram([
		"journalctl",
		"--no-pager",
		"--quiet",
		"-o",
		"cat",
		"-u",
		service,
		"--since",
		"-90d",
		"--grep",
		"canary_used",
	]);
	// With no line that fits, journalctl ends with 1 and says nothing.
	if (code > 1 || stderr.trim() !== "")
		return unknown(`the journal cannot be read: ${stderr.trim()}`);
	return withKeys(patient, (keys) =>
		judgeCanaries(keys, readCanaryUses(stdout)),
	);
}

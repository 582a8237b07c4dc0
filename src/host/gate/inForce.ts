import { lastChangeMs } from "../../config/ordinaryFile.ts";
import {
	absent,
	finding,
	type Outcome,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import { noteRules } from "../../gate/noteRules.ts";
import { loadRules } from "../../gate/rules.ts";
import { exists } from "./files.ts";
import { askGate, gateHas } from "./inspect.ts";
import { type ChangedFile, judgeInForce } from "./keys.ts";

/** Whether the running gate has read the keys and settings that are stored. */
export async function examineInForce(patient: Patient): Promise<Outcome> {
	const { configFile } = patient;
	if (!(await exists(configFile)))
		return absent(`${configFile} does not exist`);
	const asked = await askGate(patient);
	let stored: Stored;
	try {
		stored = await readStored(configFile);
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return finding(
			[
				`the gate would not start again with its files: ${error.message.split("\n").slice(0, 3).join(" ")}`,
				...(asked.kind === "status" && !asked.status.lastReload.ok
					? [`its last reload, at ${asked.status.lastReload.at}, was refused`]
					: []),
			],
			{
				fix: "sudo llamagate check, mend what it says, then: sudo llamagate reload",
			},
		);
	}
	if (asked.kind !== "status") return unknown(asked.why);
	// A hard link to a file, or another owner, makes it no other to the gate.
	const hasRead = (await gateHas(patient, stored.mark)) === true;
	return judgeInForce({
		names: stored.names,
		status: asked.status,
		changed: hasRead ? [] : stored.changed,
	});
}

/** What a gate would have that read its files now. */
export interface Stored {
	/** The names in the keys file. */
	readonly names: readonly string[];
	/** Every file that a gate reads at its start and at a reload alone. */
	readonly changed: readonly ChangedFile[];
	/** Of what these hold (`NotedRules`). */
	readonly mark: string;
}

/** @throws {BadFileError} if one of the files would not load */
export async function readStored(configFile: string): Promise<Stored> {
	const { rules, files, mark } = await noteRules(() => loadRules(configFile));
	return {
		names: rules.keyring.names,
		mark,
		changed: await Promise.all(
			files.map(async (file) => ({ file, atMs: await lastChangeMs(file) })),
		),
	};
}

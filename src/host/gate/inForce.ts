import { stat } from "node:fs/promises";
import {
	absent,
	finding,
	type Outcome,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import { loadRules } from "../../gate/rules.ts";
import { exists, filesOf } from "./files.ts";
import { askGate } from "./inspect.ts";
import { judgeInForce } from "./keys.ts";

/** Whether the running gate has read the keys and settings that are stored. */
export async function examineInForce(patient: Patient): Promise<Outcome> {
	const { configFile } = patient;
	if (!(await exists(configFile)))
		return absent(`${configFile} does not exist`);
	const asked = await askGate(patient);
	let names: readonly string[] = [];
	let mistake: string | undefined;
	try {
		names = (await loadRules(configFile)).keyring.names;
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		mistake = error.message;
	}
	if (mistake !== undefined)
		return finding(
			[
				`the gate would not start again with its files: ${mistake.split("\n").slice(0, 3).join(" ")}`,
				...(asked.kind === "status" && !asked.status.lastReload.ok
					? [`its last reload, at ${asked.status.lastReload.at}, was refused`]
					: []),
			],
			{
				fix: "sudo llamagate check, mend what it says, then: sudo llamagate reload",
			},
		);
	if (asked.kind !== "status") return unknown(asked.why);
	const { config, keys } = await filesOf(patient);
	return judgeInForce({
		stored: names,
		status: asked.status,
		changed: await Promise.all(
			[config, keys].map(async (file) => ({
				file,
				atMs: (await stat(file)).mtimeMs,
			})),
		),
	});
}

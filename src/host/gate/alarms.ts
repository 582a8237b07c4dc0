import { loadConfig, type Settings } from "../../config/load.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import {
	type AlarmTarget,
	loadAlarmTargets,
} from "../../ledger/alarms/targets.ts";
import { askWhetherTells } from "../../ledger/ask.ts";
import { lookUpUnit, type Unit } from "../../system/units.ts";
import { ledgerUnit } from "./ledgerUnit.ts";

/** What gives the ledger's unit a way out. */
export const alarmsDropIn = `/etc/systemd/system/${ledgerUnit}.d/llamagate-way-out.conf`;

const restartLedger = "sudo systemctl restart llamagate-ledger";

/** Whether alarms that are wanted can leave this host. */
export async function examineAlarms(patient: Patient): Promise<Outcome> {
	let settings: Settings;
	let targets: readonly AlarmTarget[];
	try {
		settings = await loadConfig(patient.configFile);
		targets = await loadAlarmTargets(settings);
	} catch (error) {
		if (!(error instanceof BadFileError)) throw error;
		return error.file === patient.configFile
			? unknown("the configuration cannot be read")
			: finding([error.message.replaceAll("\n", "")], {
					fix: `mend that file, then: ${restartLedger}`,
				});
	}
	const { ledger } = settings;
	return judgeAlarms(
		targets,
		await lookUpUnit(ledgerUnit),
		targets.length === 0 || ledger === undefined
			? "there is nothing to ask about"
			: await askWhetherTells(ledger.socket, targets),
	);
}

/**
 * @param unit the ledger's; `undefined` where no systemd answers
 * @param tells whether the running ledger has these targets, or why that is not known
 */
export function judgeAlarms(
	targets: readonly Pick<AlarmTarget, "name" | "on">[],
	unit: Pick<Unit, "exists" | "isActive" | "dropIns"> | undefined,
	tells: boolean | string,
): Outcome {
	const isOpen = unit?.dropIns.includes(alarmsDropIn) === true;
	if (targets.length === 0)
		return isOpen
			? finding([
					`the configuration has no alarms, and ${ledgerUnit} has a way out all the same (${alarmsDropIn})`,
				])
			: absent("the configuration has no alarms");
	const facts = targets.map(
		({ name, on }) => `${name} is told of ${[...on].join(", ")}`,
	);
	if (unit?.exists === true && !isOpen)
		return finding([`${ledgerUnit} has no way out to send them`, ...facts]);
	if (unit?.exists === true && !unit.isActive)
		return finding([`${ledgerUnit}, which sends them, does not run`, ...facts]);
	if (typeof tells === "string")
		return unknown(`whom the running ledger tells is not known: ${tells}`);
	return tells
		? ok(...facts)
		: finding(
				[
					"the running ledger has read the configuration, or a file that it names, before alarms were changed there, and tells whom it was told of then",
					...facts,
				],
				{ fix: restartLedger },
			);
}

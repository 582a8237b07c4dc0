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
import { lookUpUnit, type Unit } from "../../system/units.ts";
import { ledgerUnit } from "./ledgerUnit.ts";

/** What gives the ledger's unit a way out. */
export const alarmsDropIn = `/etc/systemd/system/${ledgerUnit}.d/llamagate-way-out.conf`;

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
					fix: "mend that file, then: sudo systemctl restart llamagate-ledger",
				});
	}
	return judgeAlarms(targets, await lookUpUnit(ledgerUnit));
}

/** @param unit the ledger's; `undefined` where no systemd answers */
export function judgeAlarms(
	targets: readonly Pick<AlarmTarget, "name" | "on">[],
	unit: Pick<Unit, "exists" | "isActive" | "dropIns"> | undefined,
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
	if (unit?.exists !== true) return ok(...facts);
	if (!isOpen)
		return finding([`${ledgerUnit} has no way out to send them`, ...facts]);
	return unit.isActive
		? ok(...facts)
		: finding([`${ledgerUnit}, which sends them, does not run`, ...facts]);
}

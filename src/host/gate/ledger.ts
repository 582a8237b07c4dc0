import type { GateStatus } from "../../admin/status.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { BadFileError } from "../../errors.ts";
import { loadRules } from "../../gate/rules.ts";
import { askGate } from "./inspect.ts";

/** Whether usage is kept where it is wanted, and budgets can be told. */
export async function examineLedger(patient: Patient): Promise<Outcome> {
	const rules = await loadRules(patient.configFile).catch((error: unknown) => {
		if (error instanceof BadFileError) return undefined;
		throw error;
	});
	if (rules === undefined)
		return unknown("the configuration or the keys cannot be read");
	const asked = await askGate(patient);
	return judgeLedger(
		rules.settings.ledger !== undefined,
		[...rules.keyring.budgets.keys()],
		asked.kind === "status" ? asked.status : asked.why,
	);
}

/**
 * @param isWanted whether the configuration has a ledger
 * @param budgeted keys with a budget
 * @param gate what the running gate says, or why it says nothing
 */
export function judgeLedger(
	isWanted: boolean,
	budgeted: readonly string[],
	gate: Pick<GateStatus, "ledger"> | string,
): Outcome {
	if (!isWanted)
		return budgeted.length === 0
			? absent("the configuration has no ledger")
			: finding(
					budgeted.map(
						(key) =>
							`the key "${key}" has a budget, and no ledger keeps what it used: it is whole again after each restart`,
					),
					{
						fix: 'add "ledger": {} to the configuration, then: sudo llamagate setup --only gate',
					},
				);
	if (typeof gate === "string") return unknown(gate);
	if (gate.ledger === undefined)
		return finding(["the running gate was started without the ledger"], {
			fix: "sudo systemctl restart llamagate",
		});
	const { isConnected, waiting, written, lost } = gate.ledger;
	const facts = [
		`${written} requests are in the ledger since the gate's start, ${waiting} wait`,
		...(lost > 0 ? [`the usage of ${lost} requests is lost`] : []),
	];
	if (!isConnected) return finding(["no ledger takes records", ...facts]);
	return lost > 0 ? finding(facts) : ok(...facts);
}

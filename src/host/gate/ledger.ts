import type { GateStatus } from "../../admin/status.ts";
import type { LedgerSettings } from "../../config/ledger.ts";
import {
	absent,
	finding,
	type Outcome,
	ok,
	type Patient,
	unknown,
} from "../../doctor/check.ts";
import { ifUsable } from "../../errors.ts";
import { loadRules } from "../../gate/rules.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import { askGate, isLoaded, propertiesOf } from "./inspect.ts";
import {
	databaseObstacle,
	dropInOf,
	ledgerDropIn,
	ledgerUnit,
} from "./ledgerUnit.ts";

/** Whether usage is kept where it is wanted, and budgets can be told. */
export async function examineLedger(patient: Patient): Promise<Outcome> {
	const rules = await ifUsable(loadRules(patient.configFile));
	if (rules === undefined)
		return unknown("the configuration or the keys cannot be read");
	const asked = await askGate(patient);
	const { ledger } = rules.settings;
	return judgeLedger(
		ledger !== undefined,
		[...rules.keyring.budgets.values()].map(({ account, group }) =>
			group === undefined ? `the key "${account}"` : `the group "${group}"`,
		),
		asked.kind === "status" ? asked.status : asked.why,
		await databaseTrouble(ledger),
	);
}

/** What keeps the ledger from its database, as far as this host goes. */
async function databaseTrouble(
	ledger: LedgerSettings | undefined,
): Promise<string | undefined> {
	const obstacle = await databaseObstacle(ledger);
	if (obstacle !== undefined) return obstacle;
	if (!isLoaded(await propertiesOf(ledgerUnit))) return undefined;
	const { content } = await takeSnapshot(ledgerDropIn);
	return (content?.toString() ?? "") === dropInOf(ledger)
		? undefined
		: `${ledgerDropIn} does not lead to the database that ledger.url names`;
}

/**
 * @param isWanted whether the configuration has a ledger
 * @param budgeted the keys and groups with a budget, as a sentence names them
 * @param gate what the running gate says, or why it says nothing
 * @param trouble what keeps the ledger from its database
 */
export function judgeLedger(
	isWanted: boolean,
	budgeted: readonly string[],
	gate: Pick<GateStatus, "ledger"> | string,
	trouble?: string,
): Outcome {
	if (!isWanted)
		return budgeted.length === 0
			? absent("the configuration has no ledger")
			: finding(
					budgeted.map(
						(who) =>
							`${who} has a budget, and no ledger keeps what it used: it is whole again after each restart`,
					),
					{
						fix: 'add "ledger": {} to the configuration, then: sudo llamagate setup --only gate',
					},
				);
	if (trouble !== undefined)
		return finding([trouble], { fix: "sudo llamagate setup --only gate" });
	if (typeof gate === "string") return unknown(gate);
	if (gate.ledger === undefined)
		return finding(["the running gate was started without the ledger"], {
			fix: "sudo systemctl restart llamagate",
		});
	const { isConnected, waiting, written, lost, why } = gate.ledger;
	const facts = [
		`${written} requests are in the ledger since the gate's start, ${waiting} wait`,
		...(lost > 0 ? [`the usage of ${lost} requests is lost`] : []),
	];
	if (!isConnected)
		return finding([
			`no ledger takes records${why === undefined ? "" : `: ${why}`}`,
			...facts,
		]);
	return lost > 0 ? finding(facts) : ok(...facts);
}

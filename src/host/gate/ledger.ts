import type { GateStatus } from "../../admin/status.ts";
import type { LedgerSettings } from "../../config/ledger.ts";
import type { Settings } from "../../config/load.ts";
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
import type { Period } from "../../ledger/budgetWindow.ts";
import { takeSnapshot } from "../../setup/snapshot.ts";
import { lookUpUnit } from "../../system/units.ts";
import { askGate, isLoaded, propertiesOf } from "./inspect.ts";
import {
	databaseObstacle,
	dropInOf,
	endLedger,
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
	const trouble =
		(await databaseTrouble(ledger)) ??
		(ledger === undefined ? await needlessUnit() : undefined);
	return judgeLedger(
		ledger !== undefined,
		[...rules.keyring.budgets.values()].map(({ account, group, budget }) => ({
			account,
			group,
			per: budget.per,
		})),
		asked.kind === "status" ? asked.status : asked.why,
		{
			withoutLedger: rules.settings.budgets.withoutLedger,
			...(trouble !== undefined && { trouble }),
		},
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

/** Whether the ledger's unit is there to run, which without its section it cannot. */
async function needlessUnit(): Promise<string | undefined> {
	const unit = await lookUpUnit(ledgerUnit);
	return unit !== undefined && endLedger(unit).length > 0
		? `${ledgerUnit} is ${unit.isFailed ? "failed" : "enabled"}, and the configuration has no ledger: without one it does not start`
		: undefined;
}

/** A budget, and whose it is. */
interface Budgeted {
	/** The key's name, or `group:NAME`. */
	readonly account: string;
	readonly group: string | undefined;
	readonly per: Period;
}

/**
 * @param isWanted whether the configuration has a ledger
 * @param budgeted the keys and groups with a budget
 * @param gate what the running gate says, or why it says nothing
 * @param about what becomes of keys whose use is not known, by the configuration,
 * and what is wrong with the ledger's unit or its way to the database
 */
export function judgeLedger(
	isWanted: boolean,
	budgeted: readonly Budgeted[],
	gate: Pick<GateStatus, "ledger" | "budgets"> | string,
	{
		withoutLedger = "batch",
		trouble,
	}: {
		readonly withoutLedger?: Settings["budgets"]["withoutLedger"];
		readonly trouble?: string;
	} = {},
): Outcome {
	const areServed =
		withoutLedger === "batch"
			? "are served in the class `batch`"
			: "are answered 503";
	if (!isWanted) {
		const kept = budgeted.map(
			(one) =>
				`${whose(one)} has a budget, and no ledger keeps what it used: after each restart it is whole again, and until its next ${one.per} begins its requests ${areServed}`,
		);
		const wrong = trouble === undefined ? kept : [trouble, ...kept];
		return wrong.length === 0
			? absent("the configuration has no ledger")
			: finding(wrong, {
					fix: `${kept.length === 0 ? "" : 'add "ledger": {} to the configuration, then: '}sudo llamagate setup --only gate`,
				});
	}
	const untold = untoldOf(budgeted, gate).map(
		(one) =>
			`${whose(one)} has a budget, and what it has used is not known: until a ledger tells, its requests ${areServed}`,
	);
	if (trouble !== undefined)
		return finding([trouble, ...untold], {
			fix: "sudo llamagate setup --only gate",
		});
	if (typeof gate === "string") return unknown(gate);
	if (gate.ledger === undefined)
		return finding(
			["the running gate was started without the ledger", ...untold],
			{ fix: "sudo systemctl restart llamagate" },
		);
	const { isConnected, waiting, written, lost, why } = gate.ledger;
	const facts = [
		`${written} requests are in the ledger since the gate's start, ${waiting} wait`,
		...(lost > 0 ? [`the usage of ${lost} requests is lost`] : []),
	];
	if (!isConnected)
		return finding([
			`no ledger takes records${why === undefined ? "" : `: ${why}`}`,
			...facts,
			...untold,
		]);
	return lost > 0 ? finding(facts) : ok(...facts);
}

/** Those of which the gate does not say that it knows what was used. */
function untoldOf(
	budgeted: readonly Budgeted[],
	gate: Pick<GateStatus, "budgets"> | string,
): Budgeted[] {
	const told = typeof gate === "string" ? undefined : gate.budgets;
	const known = new Set(
		told?.filter(({ isKnown }) => isKnown).map(({ key }) => key),
	);
	return budgeted.filter(({ account }) => !known.has(account));
}

function whose({ account, group }: Budgeted): string {
	return group === undefined ? `the key "${account}"` : `the group "${group}"`;
}

import type { Settings } from "../config/load.ts";

/** How requests fare whose key has a budget of which nobody knows what is used, after "its requests". */
export const servedUntilKnown: Readonly<
	Record<Settings["budgets"]["withoutLedger"], string>
> = {
	batch: "are served in the class batch",
	refuse: "are answered 503",
};

/**
 * What a budget is without a ledger, for who has just given one to a key, by
 * itself or by its group; `undefined` where there is a ledger, or no budget.
 */
export function warningOfBudget(
	{ ledger, budgets }: Pick<Settings, "ledger" | "budgets">,
	{
		budget,
		group,
	}: {
		readonly budget?: { readonly per: string } | null | undefined;
		readonly group?: string | null | undefined;
	},
): string | undefined {
	const given = budget ?? budgets.groups[group ?? ""];
	if (ledger !== undefined || given === undefined) return undefined;
	return `There is no ledger in the configuration: this budget is whole again after each restart of the gate, and until its next ${given.per} begins the key's requests ${servedUntilKnown[budgets.withoutLedger]}. "ledger": {} keeps count (docs/usage.md).`;
}

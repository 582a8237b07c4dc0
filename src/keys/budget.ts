import type { BudgetEntry } from "../config/budget.ts";
import { parseDuration } from "../duration.ts";
import type { Budget, Charge } from "../ledger/budgets.ts";
import { dayMs } from "../ledger/store.ts";

/** @param entry of a file that has been checked */
export function readBudget({
	gpu,
	tokens,
	requests,
	per,
	timezone = "UTC",
	then = "refuse",
}: BudgetEntry): Budget {
	const gpuMs = gpu === undefined ? undefined : (parseDuration(gpu) ?? 0);
	return {
		limits: {
			...(gpuMs !== undefined && { gpuMs }),
			...(tokens !== undefined && { tokens }),
			...(requests !== undefined && { requests }),
		},
		per,
		timezone,
		then,
	};
}

/** In whole days: clocks may be put back in it. */
const longestDays = { day: 2, week: 8, month: 32 } as const;

/**
 * What is older than the ledger's records is told by whole days of UTC: the first
 * day, week or month of another zone would have hours of the one before in it.
 *
 * @param retentionMs how long records are kept; `undefined` without a ledger
 * @returns what is wrong with that, if the time of one of the budgets is longer
 */
export function shortRetention(
	charges: Iterable<Charge>,
	retentionMs: number | undefined,
): string | undefined {
	if (retentionMs === undefined) return undefined;
	for (const { account, group, budget } of charges) {
		const { per, timezone } = budget;
		const days = longestDays[per];
		if (timezone === "UTC" || retentionMs >= days * dayMs) continue;
		const whose = group === undefined ? `key "${account}"` : `group "${group}"`;
		return `is too short for the ${per} in ${timezone} that the budget of the ${whose} counts; set at least "${days}d", or have the budget count in UTC`;
	}
	return undefined;
}

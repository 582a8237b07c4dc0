import type { BudgetEntry } from "../config/budget.ts";
import { parseDuration } from "../duration.ts";
import type { Budget } from "../ledger/budgets.ts";

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

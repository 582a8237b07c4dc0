import { budgetSchema, groupNamePattern } from "./budget.ts";
import { section } from "./schemaNodes.ts";

/** The section `budgets`. */
export const budgetsSchema = section(
	{
		withoutLedger: {
			type: "string",
			enum: ["batch", "refuse"],
			"x-expected": '"batch" or "refuse"',
			default: "batch",
			description:
				"What becomes of requests of a key with a budget, its own or its group's, while no ledger has told what the key used before the gate started: `batch` lets them wait with those of class `batch`, `refuse` answers 503.",
		},
		groups: {
			type: "object",
			additionalProperties: budgetSchema,
			propertyNames: { pattern: groupNamePattern },
			"x-expected":
				"budgets by the names of groups, of at most 64 letters, digits, dots, dashes and underscores",
			default: {},
			description:
				'Budgets that keys share: each has a name and what a key\'s `budget` has, such as `{ "family": { "gpu": "2h", "per": "day" } }`. A key is in one by its `group` (docs/usage.md).',
		},
	},
	"Budgets: a key's own is in the keys file, those of groups here (docs/usage.md).",
);

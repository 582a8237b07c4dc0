import { durationPattern } from "../duration.ts";
import { parseStrictJson } from "./strictJson.ts";

/** In what time a budget is used up, and begins anew. */
export const periods = ["day", "week", "month"] as const;
export type Period = (typeof periods)[number];

/** What a key, or a group of keys, may use in a time, as the files have it. */
export interface BudgetEntry {
	/** A duration: how long the GPU may work for it. */
	readonly gpu?: string;
	/** Of the prompt and generated. */
	readonly tokens?: number;
	readonly requests?: number;
	readonly per: Period;
	/** Where its days begin; defaults to UTC. */
	readonly timezone?: string;
	/** What becomes of requests once it is used up; defaults to `refuse`. */
	readonly then?: "refuse" | "batch";
}

/** What a group of keys may be called. */
export const groupNamePattern = "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$";

const count = {
	type: "integer",
	minimum: 1,
	maximum: 1_000_000_000_000,
	"x-expected": "a whole number of at least 1",
};

export const budgetSchema = {
	type: "object",
	additionalProperties: false,
	required: ["per"],
	"x-expected": 'a budget such as { "gpu": "2h", "per": "day" }',
	properties: {
		gpu: {
			type: "string",
			pattern: durationPattern,
			"x-expected": 'a duration such as "2h"',
		},
		tokens: count,
		requests: count,
		per: {
			type: "string",
			enum: [...periods],
			"x-expected": periods.map((period) => `"${period}"`).join(" or "),
		},
		timezone: {
			type: "string",
			"x-expected": "a time zone such as Europe/Berlin",
		},
		// biome-ignore lint/suspicious/noThenProperty: a schema that nothing awaits
		then: {
			type: "string",
			enum: ["refuse", "batch"],
			"x-expected": '"refuse" or "batch"',
		},
	},
};

/** What of a budget the schema cannot tell, and where it is. */
export function budgetMistakes(
	budget: BudgetEntry | undefined,
): [string[], string][] {
	if (budget === undefined) return [];
	const mistakes: [string[], string][] = [];
	const { gpu, tokens, requests, timezone } = budget;
	if (gpu === undefined && tokens === undefined && requests === undefined)
		mistakes.push([[], "limits nothing; give it gpu, tokens or requests"]);
	if (timezone !== undefined && !isTimezone(timezone))
		mistakes.push([
			["timezone"],
			"expected a time zone such as Europe/Berlin or UTC",
		]);
	return mistakes;
}

/**
 * Reads `gpu=2h,tokens=1000000,requests=500,per=day,timezone=Europe/Berlin,then=batch`,
 * in any order; `per` is `day` if it is not there.
 *
 * @returns the budget, or what is wrong
 */
export function parseBudget(text: string): BudgetEntry | string {
	const given: Record<string, string | number> = {};
	for (const part of text.split(",")) {
		const [, name = "", value = ""] = /^\s*(\w+)=(\S+)\s*$/.exec(part) ?? [];
		const property = Object.hasOwn(budgetSchema.properties, name)
			? (budgetSchema.properties as Record<string, { type: string }>)[name]
			: undefined;
		if (property === undefined)
			return `${JSON.stringify(part)} is none of ${Object.keys(budgetSchema.properties).join("=, ")}=`;
		if (Object.hasOwn(given, name)) return `${name} is there twice`;
		// What is no number stays as it was written, and is refused as that.
		const isCount = property.type === "integer" && /^\d+$/.test(value);
		given[name] = isCount ? Number(value) : value;
	}
	const { value, mistakes } = parseStrictJson(
		JSON.stringify({ per: "day", ...given }),
		budgetSchema,
		true,
	);
	const [mistake] = mistakes;
	if (mistake !== undefined) return `${mistake.path}: ${mistake.message}`;
	const budget = value as BudgetEntry;
	const [wrong] = budgetMistakes(budget);
	return wrong === undefined ? budget : [...wrong[0], wrong[1]].join(": ");
}

/** Whether this is a time zone that the system knows, such as Europe/Berlin. */
export function isTimezone(name: string): boolean {
	try {
		new Intl.DateTimeFormat("en-US", { timeZone: name });
		return true;
	} catch {
		return false;
	}
}

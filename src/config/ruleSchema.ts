import { scopes } from "../ollama/routes.ts";

/** What rules in the configuration and in the keys file have in common. */

/** What a share may be: more than nothing, and so far apart that sums stay exact. */
export const shareLimits = { minimum: 0.001, maximum: 1000 } as const;

export const modelsSchema = {
	type: "array",
	minItems: 1,
	"x-expected": "a list of patterns such as qwen3:*",
	items: {
		type: "string",
		"x-expected": "a pattern such as qwen3:*",
	},
} as const;

export const scopesSchema = {
	type: "array",
	minItems: 1,
	"x-expected": `a list of scopes: ${scopes.join(", ")}`,
	items: {
		type: "string",
		enum: scopes,
		"x-expected": `a scope: ${scopes.join(", ")}`,
	},
} as const;

export const shareSchema = {
	type: "number",
	...shareLimits,
	"x-expected": `a number from ${shareLimits.minimum} to ${shareLimits.maximum}`,
} as const;

import { parseModelPattern } from "../ollama/modelName.ts";
import type { Scope } from "../ollama/routes.ts";
import { modelsSchema, scopesSchema, shareSchema } from "./ruleSchema.ts";

/** Whom the tailnet's login lets in without a key, and what they may. */
export interface LoginRule {
	/** Logins of the tailnet, or `*@example.com`. */
	readonly users: readonly string[];
	/** Absent for what a key may when its entry does not say, as is `share`. */
	readonly scopes?: readonly Scope[];
	/** Patterns; absent for all models that run here, and in the cloud. */
	readonly models?: readonly string[];
	readonly share?: number;
}

/** The setting `identity.rules`. */
export const loginRulesSchema = {
	type: "array",
	"x-expected": "a list of rules",
	items: {
		type: "object",
		additionalProperties: false,
		required: ["users"],
		"x-expected": "a rule: { users, … }",
		properties: {
			users: {
				type: "array",
				minItems: 1,
				"x-expected": "a list of logins",
				items: {
					type: "string",
					pattern: "^(\\*@[^*@\\s]+|[^*\\s]+)$",
					maxLength: 256,
					"x-expected": "a login such as me@example.com, or *@example.com",
				},
			},
			scopes: { ...scopesSchema, examples: [["read", "infer"]] },
			models: { ...modelsSchema, examples: [["qwen3:*"]] },
			share: { ...shareSchema, examples: [2] },
		},
	},
	default: [],
	description:
		"Who is let in without a key under `login`: `users` are logins of the tailnet (`me@example.com`, or `*@example.com`), `scopes` (default: read and infer) and `models` (default: all) what they may, `share` what they are owed of the GPU beside others. Several rules that fit add up.",
} as const;

/** What of these rules a schema cannot say: where it is, and what is wrong. */
export function loginMistakes(
	mode: string,
	rules: readonly LoginRule[],
): [(string | number)[], string][] {
	const mistakes: [(string | number)[], string][] = [];
	if (mode === "login" && rules.length === 0)
		mistakes.push([
			["mode"],
			'is "login", and identity.rules, which say whom it lets in, are missing',
		]);
	for (const [index, { models = [] }] of rules.entries())
		for (const [turn, pattern] of models.entries())
			if (parseModelPattern(pattern) === undefined)
				mistakes.push([
					["rules", index, "models", turn],
					"expected a pattern such as qwen3:*, hf.co/*/*:* or *",
				]);
	return mistakes;
}

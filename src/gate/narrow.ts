import type { Key } from "../keys/keyring.ts";
import type { ModelName, ModelPattern } from "../ollama/modelName.ts";
import type { Route, Scope } from "../ollama/routes.ts";

/** What something other than the key leaves of it: a grant of the tailnet's policy, a rule about a person. */
export interface Grant {
	readonly scopes: ReadonlySet<Scope>;
	/** `undefined` for all models. */
	readonly models: readonly ModelPattern[] | undefined;
}

/**
 * The key with what the grants leave of it for this route; `undefined` for
 * nothing. Several add up, each by itself: `read` on all models and `infer` on
 * some do not make `infer` on all. What the key has not they do not give.
 *
 * @param to whom they are for, to end the sentence "may not use the model …"
 */
export function narrow(
	key: Key,
	grants: readonly Grant[],
	route: Route,
	to: NonNullable<Key["narrowed"]>,
): Key | undefined {
	const fitting = grants.filter((grant) => grant.scopes.has(route.scope));
	if (fitting.length === 0 || !key.scopes.has(route.scope)) return undefined;
	const scopes = new Set(
		[...key.scopes].filter((scope) =>
			grants.some((grant) => grant.scopes.has(scope)),
		),
	);
	const limits = fitting.map(({ models }) => models);
	if (limits.some((models) => models === undefined)) return { ...key, scopes };
	const granted = limits.flatMap((models) => models ?? []);
	const matches = (patterns: readonly ModelPattern[], name: ModelName) =>
		patterns.some((pattern) => pattern(name));
	const { models } = key;
	return {
		...key,
		scopes,
		// They are not all that decides now.
		modelNames: [],
		narrowed: to,
		models: [
			(name) =>
				(models === undefined || matches(models, name)) &&
				matches(granted, name),
		],
	};
}

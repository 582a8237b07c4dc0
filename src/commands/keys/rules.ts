import { readFile } from "node:fs/promises";
import { type BudgetEntry, parseBudget } from "../../config/budget.ts";
import type { Settings } from "../../config/load.ts";
import { shareLimits } from "../../config/ruleSchema.ts";
import { parseDuration } from "../../duration.ts";
import { Finding, UsageError } from "../../errors.ts";
import { shortRetention } from "../../keys/budget.ts";
import type { Binding, KeyEntry } from "../../keys/keyFile.ts";
import { defaultScopes, parseTime } from "../../keys/keyFile.ts";
import { Keyring } from "../../keys/keyring.ts";
import { parseOllamaKey } from "../../ollama/cliSignature.ts";
import { parseModelPattern } from "../../ollama/modelName.ts";
import { type Scope, scopes } from "../../ollama/routes.ts";
import { type Priority, priorities } from "../../priority.ts";

export function readName(name: string | undefined): string {
	if (name === undefined || !/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name))
		throw new UsageError(
			`${JSON.stringify(name)} is not a name for a key; use at most 64 letters, digits, dots, dashes and underscores`,
		);
	return name;
}

export function readScopes(text: string | undefined): readonly Scope[] {
	if (text === undefined) return defaultScopes;
	const wanted = text.split(",").map((scope) => scope.trim());
	const known: readonly string[] = scopes;
	const wrong = wanted.find((scope) => !known.includes(scope));
	if (wrong !== undefined)
		throw new UsageError(
			`${JSON.stringify(wrong)} is not a scope; known: ${scopes.join(", ")}`,
		);
	return scopes.filter((scope) => wanted.includes(scope));
}

/**
 * When a key ends: a duration from now, a day (its first moment, UTC) or a time.
 *
 * @returns ISO 8601, UTC
 */
export function readExpires(text: string | undefined): string | undefined {
	if (text === undefined) return undefined;
	const durationMs = parseDuration(text);
	const timeMs =
		durationMs === undefined
			? parseTime(/^\d{4}-\d{2}-\d{2}$/.test(text) ? `${text}T00:00:00Z` : text)
			: Date.now() + durationMs;
	if (timeMs === undefined)
		throw new UsageError(
			`--expires ${text} is neither a duration such as 90d, nor a day such as 2030-01-01, nor a time such as 2030-01-01T12:00:00Z`,
		);
	if (timeMs <= Date.now())
		throw new UsageError(`--expires ${text} is in the past`);
	if (timeMs > 253_402_300_799_000)
		throw new UsageError(`--expires ${text} is further off than the year 9999`);
	return new Date(timeMs).toISOString();
}

export function readModels(text: string | undefined): string[] | undefined {
	if (text === undefined) return undefined;
	const patterns = text.split(",").map((pattern) => pattern.trim());
	const wrong = patterns.find(
		(pattern) => parseModelPattern(pattern) === undefined,
	);
	if (wrong !== undefined)
		throw new UsageError(
			`${JSON.stringify(wrong)} is not a pattern of models; write one such as qwen3:*, hf.co/*/*:* or *`,
		);
	return patterns;
}

/**
 * Sorts names into devices, people and tags. `carol@` is a person whose login
 * has no e-mail, which is how headscale writes one.
 */
export function readBind(text: string): Binding {
	const given = text.split(",").map((name) => name.trim());
	if (given.some((name) => name === "" || name === "@"))
		throw new UsageError("--bind has an empty name");
	const tags = given.filter((name) => name.startsWith("tag:"));
	const users = given.filter((name) => name.includes("@"));
	const nodes = given.filter(
		(name) => !tags.includes(name) && !users.includes(name),
	);
	return {
		...(nodes.length > 0 ? { nodes } : undefined),
		...(users.length > 0 ? { users } : undefined),
		...(tags.length > 0 ? { tags } : undefined),
	};
}

/** The options of `add` and `edit` that say what a key may do. */
export const ruleOptions = {
	scopes: { type: "string" },
	models: { type: "string" },
	bind: { type: "string" },
	expires: { type: "string" },
	"requests-per-minute": { type: "string" },
	concurrent: { type: "string" },
	share: { type: "string" },
	priority: { type: "string" },
	budget: { type: "string" },
	group: { type: "string" },
} as const;

/** How much of the GPU's time a key is owed beside others. */
export function readShare(text: string | undefined): number | undefined {
	if (text === undefined) return undefined;
	const share = /^\d{1,4}(\.\d{1,3})?$/.test(text) ? Number(text) : Number.NaN;
	const { minimum, maximum } = shareLimits;
	if (!(share >= minimum && share <= maximum))
		throw new UsageError(
			`--share ${text} is not a share; write a number from ${minimum} to ${maximum}, such as 2`,
		);
	return share;
}

export function readBudget(text: string | undefined): BudgetEntry | undefined {
	if (text === undefined) return undefined;
	const budget = parseBudget(text);
	if (typeof budget === "string")
		throw new UsageError(
			`--budget ${text} is not a budget (${budget}); write one such as gpu=2h,per=day`,
		);
	return budget;
}

export function readPriority(text: string | undefined): Priority | undefined {
	if (text === undefined) return undefined;
	const priority = priorities.find((known) => known === text);
	if (priority === undefined)
		throw new UsageError(
			`--priority ${text} is not a class; known: ${priorities.join(", ")}`,
		);
	return priority;
}

/** A limit of a key: a whole number of at least 1. */
export function readLimit(
	option: keyof typeof ruleOptions,
	text: string | undefined,
): number | undefined {
	if (text === undefined) return undefined;
	const limit = /^[1-9]\d{0,8}$/.test(text) ? Number(text) : undefined;
	if (limit === undefined)
		throw new UsageError(
			`--${option} ${text} is not a limit; write a whole number of at least 1`,
		);
	return limit;
}

/** The public half of a client's key, from its file: `ssh-ed25519 AAAA… comment`. */
export async function readOllamaKey(file: string): Promise<string> {
	const text = await readFile(file, "utf8").catch((error: unknown) => {
		throw new Finding(
			`${file} cannot be read (${(error as NodeJS.ErrnoException).code})`,
		);
	});
	const [type, publicKey = ""] = text.trim().split(/\s+/);
	if (type !== "ssh-ed25519" || parseOllamaKey(publicKey) === undefined)
		throw new Finding(
			`${file} is not an ed25519 public key; it is the client's ~/.ollama/id_ed25519.pub that is needed`,
		);
	return publicKey;
}

/** @throws {Finding} if the configuration has no such group, since the gate would refuse the whole file */
export function refuseUnknownGroup(
	group: string | null | undefined,
	{ budgets: { groups } }: Settings,
	configFile: string,
): void {
	if (group === undefined || group === null || Object.hasOwn(groups, group))
		return;
	const known = Object.keys(groups);
	throw new Finding(
		`found no group ${JSON.stringify(group)} in budgets.groups of ${configFile}${known.length === 0 ? "; write its budget there first" : `; known: ${known.join(", ")}`}`,
	);
}

/** @throws {Finding} if the ledger forgets what such a budget, or that of such a group, still counts: no gate would start */
export function refuseLongBudget(
	name: string,
	{
		budget,
		group,
	}: {
		readonly budget?: KeyEntry["budget"] | null | undefined;
		readonly group?: string | null | undefined;
	},
	{ budgets, ledger }: Settings,
	configFile: string,
): void {
	const given = {
		name,
		...(budget && { budget }),
		...(group != null && { group }),
	};
	const { budgets: charges } = new Keyring([given], budgets.groups);
	const tooShort = shortRetention(charges.values(), ledger?.retentionMs);
	if (tooShort !== undefined)
		throw new Finding(`ledger.retention in ${configFile} ${tooShort}`);
}

import {
	type BudgetEntry,
	budgetMistakes,
	budgetSchema,
	groupNamePattern,
} from "../config/budget.ts";
import { readOrdinaryFile } from "../config/ordinaryFile.ts";
import { formatMode, unreadable } from "../config/readConfig.ts";
import {
	modelsSchema,
	scopesSchema,
	shareSchema,
} from "../config/ruleSchema.ts";
import type { SchemaNode } from "../config/schema.ts";
import { joinPath, parseStrictJson } from "../config/strictJson.ts";
import { durationPattern } from "../duration.ts";
import { BadFileError, type Mistake } from "../errors.ts";
import { ollamaKeyPattern } from "../ollama/cliSignature.ts";
import { parseModelPattern } from "../ollama/modelName.ts";
import { optionNames } from "../ollama/options.ts";
import type { Scope } from "../ollama/routes.ts";
import { type Priority, priorities } from "../priority.ts";
import { type PeopleEntry, peopleSchema } from "./people.ts";

/** Limits of one key, in place of the configuration's. */
export interface KeyLimits {
	readonly requestsPerMinute?: number;
	readonly concurrent?: number;
}

/** Where a key may be used from: any of these nodes, users or tags. */
export interface Binding {
	readonly nodes?: readonly string[];
	readonly users?: readonly string[];
	readonly tags?: readonly string[];
}

/** One entry of the keys file: a name, a digest and rules. Never a key. */
export interface KeyEntry {
	readonly name: string;
	/** SHA-256 of the key, 64 lower-case hex digits; absent beside an `ollamaKey`. */
	readonly sha256?: string;
	/** Field 2 of the client's `~/.ollama/id_ed25519.pub`, in place of a digest. */
	readonly ollamaKey?: string;
	/** Patterns of models; absent for a key that may use all of them. */
	readonly models?: readonly string[];
	/** Devices, people and tags of the tailnet that it may be used from. */
	readonly bind?: Binding;
	/** The people behind it, where its app tells who is asking. */
	readonly people?: PeopleEntry;
	/** Lets nobody in, and raises an alarm when it is used. */
	readonly canary?: boolean;
	readonly denyOptions?: readonly string[];
	readonly maxOptions?: Readonly<Record<string, number | string>>;
	/** Defaults to `defaultScopes`. */
	readonly scopes?: readonly Scope[];
	/** ISO 8601. */
	readonly created?: string;
	/** ISO 8601; absent for a key that does not expire. */
	readonly expires?: string;
	readonly limits?: KeyLimits;
	/** How much of the GPU's time it is owed beside others; defaults to `defaultShare`. */
	readonly share?: number;
	/** Defaults to `defaultPriority`. */
	readonly priority?: Priority;
	/** What it may use in a time. */
	readonly budget?: BudgetEntry;
	/** The group of `budgets.groups` whose budget it shares. */
	readonly group?: string;
	/** Digests that a rotation has replaced and that work until their time. */
	readonly previous?: readonly {
		readonly sha256: string;
		readonly expires: string;
	}[];
}

/** What a key may do when its entry does not say. */
export const defaultScopes: readonly Scope[] = ["read", "infer"];

const digest = {
	type: "string",
	pattern: "^[0-9a-f]{64}$",
	"x-expected": "a SHA-256 digest: 64 lower-case hex digits",
};
const time = {
	type: "string",
	"x-expected": "a time such as 2027-01-01T00:00:00Z",
};
const names = {
	type: "array",
	minItems: 1,
	"x-expected": "a list of names",
	items: { type: "string", minLength: 1, "x-expected": "a name" },
};
const positive = {
	type: "integer",
	minimum: 1,
	"x-expected": "a whole number of at least 1",
};

/** The share of a key whose entry names none. */
export const defaultShare = 1;

/** The shape of the keys file. */
export const keyFileSchema = {
	type: "object",
	additionalProperties: false,
	required: ["keys"],
	properties: {
		keys: {
			type: "array",
			"x-expected": "a list of keys",
			items: {
				type: "object",
				additionalProperties: false,
				required: ["name"],
				"x-expected": "a key: { name, sha256, … }",
				properties: {
					name: {
						type: "string",
						pattern: "^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$",
						"x-expected":
							"a name of at most 64 letters, digits, dots, dashes and underscores",
					},
					sha256: digest,
					ollamaKey: {
						type: "string",
						pattern: ollamaKeyPattern,
						"x-expected": "field 2 of an ed25519 public key file",
					},
					models: modelsSchema,
					bind: {
						type: "object",
						additionalProperties: false,
						minProperties: 1,
						"x-expected": "an object with nodes, users or tags",
						properties: { nodes: names, users: names, tags: names },
					},
					people: peopleSchema,
					budget: budgetSchema,
					group: {
						type: "string",
						pattern: groupNamePattern,
						"x-expected": "the name of a group",
					},
					canary: { type: "boolean", "x-expected": "true or false" },
					denyOptions: {
						type: "array",
						"x-expected": `a list of options: ${optionNames.join(", ")}`,
						items: {
							type: "string",
							enum: [...optionNames],
							"x-expected": `an option: ${optionNames.join(", ")}`,
						},
					},
					maxOptions: {
						type: "object",
						additionalProperties: false,
						"x-expected": "an object such as { num_ctx: 8192 }",
						properties: {
							num_ctx: positive,
							num_batch: positive,
							num_predict: positive,
							num_keep: positive,
							num_thread: positive,
							keep_alive: {
								type: "string",
								pattern: durationPattern,
								"x-expected": 'a duration such as "30m"',
							},
						},
					},
					scopes: scopesSchema,
					created: time,
					expires: time,
					limits: {
						type: "object",
						additionalProperties: false,
						properties: { requestsPerMinute: positive, concurrent: positive },
					},
					share: shareSchema,
					priority: {
						type: "string",
						enum: [...priorities],
						"x-expected": `a class: ${priorities.join(", ")}`,
					},
					previous: {
						type: "array",
						items: {
							type: "object",
							additionalProperties: false,
							required: ["sha256", "expires"],
							properties: { sha256: digest, expires: time },
						},
					},
				},
			},
		},
	},
} as const;

/**
 * Reads and checks the keys file.
 *
 * @param addKey how a first key is made, where the file is missing
 * @throws {BadFileError} with every mistake in it, also when it cannot be read
 *   or when others than its owner could change it
 */
export async function loadKeys(
	file: string,
	addKey = "llamagate keys add NAME",
	groups?: ReadonlySet<string>,
): Promise<KeyEntry[]> {
	let text: string;
	try {
		const read = await readOrdinaryFile(file);
		const { mode } = read.stats;
		if ((mode & 0o022) !== 0)
			throw new BadFileError(file, [
				{
					path: "",
					message: `others than its owner may write to it (mode ${formatMode(mode)}); run chmod go-w on it`,
				},
			]);
		text = read.text;
	} catch (error) {
		if (error instanceof BadFileError) throw error;
		throw unreadable(file, error, `Make the first key with: ${addKey}`);
	}
	return parseKeys(text, file, groups);
}

/**
 * Checks the text of a keys file. Values are never quoted in mistakes: one
 * could be a key that was pasted in the wrong place.
 *
 * @param groups those that keys may be in; any where it is not given
 * @throws {BadFileError} with every mistake in it
 */
export function parseKeys(
	text: string,
	file: string,
	groups?: ReadonlySet<string>,
): KeyEntry[] {
	const json = parseStrictJson(text, keyFileSchema as SchemaNode, false);
	const mistakes: Mistake[] = [...json.mistakes];
	if (mistakes.length > 0) throw new BadFileError(file, mistakes);

	const { keys } = json.value as { keys: KeyEntry[] };
	const refuse = (where: readonly (string | number)[], message: string) => {
		const line = json.lineOf(where);
		const at = joinPath(where);
		mistakes.push(
			line === undefined ? { path: at, message } : { path: at, message, line },
		);
	};
	const names = new Set<string>();
	const digests = new Set<string>();
	for (const [index, key] of keys.entries()) {
		if (names.has(key.name))
			refuse(["keys", index, "name"], `the name "${key.name}" is here twice`);
		names.add(key.name);
		const times: [(string | number)[], string | undefined][] = [
			[["keys", index, "expires"], key.expires],
			[["keys", index, "created"], key.created],
		];
		const held: [(string | number)[], string][] = [];
		if (key.sha256 !== undefined)
			held.push([["keys", index, "sha256"], key.sha256]);
		if (key.ollamaKey !== undefined)
			held.push([["keys", index, "ollamaKey"], key.ollamaKey]);
		if (held.length !== 1)
			refuse(
				["keys", index],
				"has either sha256 or ollamaKey, and one of them",
			);
		if (key.ollamaKey !== undefined && key.previous !== undefined)
			refuse(
				["keys", index, "previous"],
				"goes with a sha256; an ollamaKey is replaced by another entry",
			);
		for (const [turn, pattern] of (key.models ?? []).entries()) {
			if (parseModelPattern(pattern) === undefined)
				refuse(
					["keys", index, "models", turn],
					"expected a pattern such as qwen3:*, hf.co/*/*:* or *",
				);
		}
		for (const [where, message] of peopleMistakes(key.people))
			refuse(["keys", index, "people", ...where], message);
		for (const [where, message] of budgetMistakes(key.budget))
			refuse(["keys", index, "budget", ...where], message);
		if (key.group !== undefined && groups?.has(key.group) === false)
			refuse(
				["keys", index, "group"],
				`is not a group of budgets.groups in the configuration${groups.size === 0 ? ", which has none" : `; known: ${[...groups].join(", ")}`}`,
			);
		for (const [turn, previous] of (key.previous ?? []).entries()) {
			times.push([
				["keys", index, "previous", turn, "expires"],
				previous.expires,
			]);
			held.push([["keys", index, "previous", turn, "sha256"], previous.sha256]);
		}
		for (const [where, text] of times) {
			if (text !== undefined && parseTime(text) === undefined)
				refuse(
					where,
					"expected a time such as 2027-01-01T00:00:00Z, with its zone",
				);
		}
		for (const [where, sha256] of held) {
			if (digests.has(sha256)) refuse(where, "the same key is here twice");
			digests.add(sha256);
		}
	}
	if (mistakes.length > 0) throw new BadFileError(file, mistakes);
	return keys;
}

/** What of a rule about people the schema cannot tell, and where it is. */
function peopleMistakes(
	people: PeopleEntry | undefined,
): [(string | number)[], string][] {
	if (people === undefined) return [];
	const mistakes: [(string | number)[], string][] = [];
	// With both, anyone who has the key would leave the token out.
	if ((people.jwt === undefined) === (people.trust === undefined))
		mistakes.push([
			[],
			'has either jwt or "trust": "headers", and one of them',
		]);
	for (const [index, rule] of (people.rules ?? []).entries()) {
		if (rule.email === undefined && rule.role === undefined)
			mistakes.push([["rules", index], "needs an email or a role"]);
		for (const [turn, pattern] of (rule.models ?? []).entries())
			if (parseModelPattern(pattern) === undefined)
				mistakes.push([
					["rules", index, "models", turn],
					"expected a pattern such as qwen3:*, hf.co/*/*:* or *",
				]);
	}
	return mistakes;
}

/**
 * The digests that rotations of a key have replaced, each with the time at which
 * it ends: its own, or the key's where that is sooner. With these a key can be
 * given more time, and they get none.
 */
export function replacedOf({
	previous = [],
	expires,
}: KeyEntry): NonNullable<KeyEntry["previous"]> {
	const endsAtMs = parseTime(expires ?? "");
	if (expires === undefined || endsAtMs === undefined) return previous;
	return previous.map((held) =>
		endsAtMs < (parseTime(held.expires) ?? 0) ? { ...held, expires } : held,
	);
}

/**
 * Reads an ISO 8601 time that names its zone as epoch milliseconds; `undefined`
 * if it is none, or on a day that does not exist.
 */
export function parseTime(text: string): number | undefined {
	if (
		!/^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?(Z|[+-]\d{2}:\d{2})$/.test(
			text,
		)
	)
		return undefined;
	const timeMs = Date.parse(text);
	return Number.isNaN(timeMs) || !isDay(text.slice(0, 10)) ? undefined : timeMs;
}

/** Date.parse takes the 31st of February for the 3rd of March. */
function isDay(date: string): boolean {
	return new Date(Date.parse(date)).toISOString().startsWith(date);
}

import { placesOf } from "../../admin/places.ts";
import { loadConfig } from "../../config/load.ts";
import { UsageError } from "../../errors.ts";
import { changeKeys } from "../../keys/changeKeys.ts";
import { type KeyEntry, parseTime, replacedOf } from "../../keys/keyFile.ts";
import { scopes } from "../../ollama/routes.ts";
import { priorities } from "../../priority.ts";
import { warningOfBudget } from "../budgetKeeping.ts";
import { readArgs } from "../command.ts";
import {
	factsOf,
	type KeyAction,
	mayOf,
	noSuchKey,
	say,
	shared,
	sharedHelp,
} from "./action.ts";
import { refuseUnknownDevices, sayWhoIsMeant } from "./bound.ts";
import {
	readBind,
	readBudget,
	readExpires,
	readLimit,
	readModels,
	readName,
	readPriority,
	readScopes,
	readShare,
	refuseLongBudget,
	refuseUnknownGroup,
	ruleOptions,
} from "./rules.ts";
import { tellDaemon } from "./tellDaemon.ts";

export const edit: KeyAction = {
	help: `
Usage: llamagate keys edit NAME [options]

Changes what a key may do; the key itself stays as it is, and so does every
rule that is not named. A running daemon is told at once. Streams of a key that
loses a scope, or has run out, are cut.

${sharedHelp}
  --scopes LIST      what the key may do: ${scopes.join(",")}
  --models LIST      patterns of models it may use, or: all
  --expires WHEN     90d, 2030-01-01 (UTC), 2030-01-01T12:00:00Z, or: never
  --requests-per-minute N
                     its own limit, or: default (the configuration's)
  --concurrent N     requests at work at once, or: default
  --share N          how much of the model's time it is owed, or: default
  --priority CLASS   ${priorities.join(", ")}, or: default
  --budget LIST      gpu=2h,per=day and the like, or: none
  --group NAME       a group whose budget it shares, or: none
  --bind LIST        devices, people and tags it may be used from, or: anywhere

Exit codes: 0 done, 1 refused, or a gate that seems to run could not be told,
            2 usage, 78 bad configuration or keys file

Example: llamagate keys edit laptop --models 'qwen3:*' --expires never
`,
	async run(args) {
		const { values, positionals } = readArgs(
			args,
			{ ...shared, ...ruleOptions },
			["NAME"],
		);
		const name = readName(positionals[0]);
		const change = readChange(values);
		if (Object.keys(change).length === 0)
			throw new UsageError(
				`say what to change: ${Object.keys(ruleOptions)
					.map((option) => `--${option}`)
					.join(", ")}`,
			);
		const settings = await loadConfig(values.config);
		if (change.bind) refuseUnknownDevices(settings, values.config);
		refuseUnknownGroup(change.group, settings, values.config);
		refuseLongBudget(name, change, settings, values.config);
		let edited: KeyEntry | undefined;
		await changeKeys(settings.keysFile, false, (keys) => {
			const old =
				keys.find((known) => known.name === name) ?? noSuchKey(name, keys);
			const changed = apply(old, change);
			edited = changed;
			return keys.map((known) => (known === old ? changed : known));
		});
		if (edited !== undefined && !values.json)
			say(`The key ${name} is changed (${mayOf(edited)}).`);
		if (change.bind) await sayWhoIsMeant(change.bind, settings.identity.socket);
		const warning = warningOfBudget(settings, change);
		if (warning !== undefined) say(warning);
		return tellDaemon(
			placesOf(settings),
			values.json && edited ? factsOf(edited) : undefined,
		);
	},
};

/** What becomes of each rule that was named; `null` takes a rule away. */
type Change = {
	[Rule in
		| "scopes"
		| "models"
		| "bind"
		| "expires"
		| "share"
		| "priority"
		| "budget"
		| "group"]?: NonNullable<KeyEntry[Rule]> | null;
} & {
	requestsPerMinute?: number | null;
	concurrent?: number | null;
};

function readChange(
	values: Partial<Record<keyof typeof ruleOptions, string>>,
): Change {
	/** The rule as `read` has it, `null` where the text is the word for none. */
	const rule = <Value>(
		option: keyof typeof ruleOptions,
		none: string | undefined,
		read: (text: string) => Value | undefined,
	) => {
		const text = values[option];
		if (text === undefined) return undefined;
		return text === none ? null : read(text);
	};
	const change: Record<string, unknown> = {
		scopes: rule("scopes", undefined, readScopes),
		models: rule("models", "all", readModels),
		bind: rule("bind", "anywhere", readBind),
		expires: rule("expires", "never", readExpires),
		share: rule("share", "default", readShare),
		priority: rule("priority", "default", readPriority),
		budget: rule("budget", "none", readBudget),
		group: rule("group", "none", (text) => text),
		requestsPerMinute: rule("requests-per-minute", "default", (text) =>
			readLimit("requests-per-minute", text),
		),
		concurrent: rule("concurrent", "default", (text) =>
			readLimit("concurrent", text),
		),
	};
	return Object.fromEntries(
		Object.entries(change).filter(([, value]) => value !== undefined),
	);
}

/** The entry with the rules changed; its secret, its name and its other rules are as they were. */
function apply(old: KeyEntry, change: Change): KeyEntry {
	const { requestsPerMinute, concurrent, ...rules } = change;
	const limits = withChanges(old.limits ?? {}, {
		...(requestsPerMinute !== undefined && { requestsPerMinute }),
		...(concurrent !== undefined && { concurrent }),
	});
	return withChanges(old, {
		...rules,
		...(rules.expires !== undefined &&
			old.previous !== undefined && { previous: endedStayEnded(old) }),
		...(old.limits !== undefined || Object.keys(limits).length > 0
			? { limits: Object.keys(limits).length > 0 ? limits : null }
			: undefined),
	});
}

/** What rotations have replaced: what ended with the key does not come back with it; the rest has its overlap. */
function endedStayEnded(old: KeyEntry): NonNullable<KeyEntry["previous"]> {
	const nowMs = Date.now();
	return replacedOf(old).map((held, index) =>
		(parseTime(held.expires) ?? 0) <= nowMs
			? held
			: (old.previous?.[index] ?? held),
	);
}

/** A copy with the changes; `null` takes a property away. */
function withChanges<Whole extends object>(
	whole: Whole,
	changes: { [Name in keyof Whole]?: Whole[Name] | null },
): Whole {
	return Object.fromEntries(
		Object.entries({ ...whole, ...changes }).filter(
			([, value]) => value !== null,
		),
	) as Whole;
}

import { stat } from "node:fs/promises";
import { findPlaces, type Places } from "../../admin/places.ts";
import type { BudgetEntry } from "../../config/budget.ts";
import { defaultConfigPath } from "../../config/load.ts";
import { isForServiceGroup } from "../../config/secretFile.ts";
import { Finding } from "../../errors.ts";
import {
	defaultScopes,
	defaultShare,
	type KeyEntry,
	parseTime,
} from "../../keys/keyFile.ts";
import { generateKey, weaknessOf } from "../../keys/newKey.ts";
import { defaultPriority } from "../../priority.ts";
import { visible } from "../../visible.ts";
import { promptForKey, readStandardInput } from "../keyInput.ts";

/** One of the things that `llamagate keys` does. */
export interface KeyAction {
	/** What `llamagate keys ACTION --help` prints, an example included. */
	readonly help: string;
	/** @returns the exit code */
	run(args: string[]): Promise<number>;
}

/** The options that every action has. */
export const shared = {
	config: { type: "string", short: "c", default: defaultConfigPath },
	json: { type: "boolean", default: false },
} as const;

/** The options of what makes a key. */
export const making = {
	...shared,
	expires: { type: "string" },
	stdin: { type: "boolean", default: false },
} as const;

/** How `--help` of each action tells of {@link shared}. */
export const sharedHelp = `  -c, --config FILE  the configuration that names the keys file
                     (default: ${defaultConfigPath})
  --json             print JSON`;

export function say(text: string): void {
	process.stderr.write(`${text}\n`);
}

export function now(): string {
	return new Date().toISOString();
}

export async function obtainKey(fromStdin: boolean): Promise<string> {
	if (!fromStdin) return generateKey();
	promptForKey();
	const key = await readStandardInput();
	const weakness = weaknessOf(key);
	if (weakness !== undefined) throw new Finding(weakness);
	return key;
}

export function refuseKnownKey(keys: readonly KeyEntry[], id: string): void {
	const holder = keys.find(
		(known) =>
			known.sha256 === id ||
			known.ollamaKey === id ||
			known.previous?.some((held) => held.sha256 === id),
	);
	if (holder !== undefined)
		throw new Finding(`that key is in use already, by ${holder.name}`);
}

export function noSuchKey(name: string, keys: readonly KeyEntry[]): never {
	const known = keys.map((key) => key.name).join(", ");
	throw new Finding(
		`found no key named ${name}${known === "" ? "" : `; known: ${known}`}`,
	);
}

/** What `--json` says of a key; the same names and types for every action. */
export function factsOf(entry: KeyEntry) {
	return {
		name: entry.name,
		kind: kindOf(entry),
		scopes: entry.scopes ?? defaultScopes,
		models: entry.models ?? null,
		bind: entry.bind ?? null,
		people:
			entry.people === undefined
				? null
				: {
						by: entry.people.jwt === undefined ? "headers" : "jwt",
						rules: entry.people.rules ?? null,
						unknown: entry.people.unknown ?? "refuse",
					},
		limits: {
			requestsPerMinute: entry.limits?.requestsPerMinute ?? null,
			concurrent: entry.limits?.concurrent ?? null,
		},
		share: entry.share ?? defaultShare,
		priority: entry.priority ?? defaultPriority,
		budget: entry.budget ?? null,
		group: entry.group ?? null,
		created: entry.created ?? null,
		expires: entry.expires ?? null,
	};
}

export function kindOf({
	canary,
	ollamaKey,
}: KeyEntry): "key" | "ollama" | "canary" {
	if (canary === true) return "canary";
	return ollamaKey === undefined ? "key" : "ollama";
}

/** What a key may do, in a line. */
export function mayOf(entry: KeyEntry): string {
	const {
		scopes,
		models,
		bind,
		people,
		limits,
		expires,
		share,
		priority,
		budget,
		group,
	} = factsOf(entry);
	const perMinute = limits.requestsPerMinute;
	return [
		entry.canary === true
			? "a canary: it lets nobody in and raises an alarm"
			: scopes.join(", "),
		models === null ? "" : `models ${models.join(", ")}`,
		bind === null ? "" : `from ${Object.values(bind).flat().join(", ")}`,
		people === null ? "" : peopleOf(people),
		perMinute === null ? "" : `${perMinute} a minute`,
		limits.concurrent === null ? "" : `${limits.concurrent} at once`,
		share === defaultShare ? "" : `share ${share}`,
		priority === defaultPriority ? "" : `class ${priority}`,
		budget === null ? "" : describeBudget(budget),
		group === null ? "" : `group ${group}`,
		expires === null ? "" : `until ${shortTime(expires)}`,
	]
		.filter((part) => part !== "")
		.join("; ");
}

/** `at most 2h of the GPU and 500 requests a day, then batch` */
function describeBudget(budget: BudgetEntry): string {
	const { gpu, tokens, requests, per, timezone, then } = budget;
	const parts = [
		gpu && `${gpu} of the GPU`,
		tokens && `${tokens} tokens`,
		requests && `${requests} requests`,
	].filter((part) => typeof part === "string");
	const where = timezone === undefined ? "" : ` (${timezone})`;
	return `at most ${parts.join(" and ")} a ${per}${where}${then === "batch" ? ", then as batch" : ""}`;
}

function peopleOf({
	by,
	rules,
	unknown,
}: NonNullable<ReturnType<typeof factsOf>["people"]>): string {
	const number = rules?.length ?? 0;
	return [
		by === "jwt"
			? "people whom its app signs"
			: "people whom its app names without a proof",
		`(${number === 0 ? "no rules" : number === 1 ? "1 rule" : `${number} rules`}, others ${unknown === "refuse" ? "refused" : "served as the key"})`,
	].join(" ");
}

/** A time to the minute, with its zone: `2030-01-01 12:00Z`. */
export function shortTime(text: string): string {
	return `${new Date(parseTime(text) ?? 0).toISOString().slice(0, 16).replace("T", " ")}Z`;
}

/**
 * Says what became of a key, and shows a made one, the only time it is seen.
 * Only the key goes to standard output, so that it can be piped.
 *
 * @param became such as "is made"
 */
export function hand(
	entry: KeyEntry,
	key: string | undefined,
	became: string,
): void {
	const facts = `The key ${entry.name} ${became} (${mayOf(entry)}).`;
	if (key === undefined) say(facts);
	else {
		process.stdout.write(`${key}\n`);
		say(`${facts} Store it now: it is not shown again.`);
	}
}

/** The same for `--json`. */
export function handedFacts(entry: KeyEntry, key: string | undefined) {
	const facts = factsOf(entry);
	return key === undefined ? facts : { ...facts, key };
}

/** The file is its owner's alone, and the daemon should not run as root. */
export async function warnOfRootOwner(file: string): Promise<void> {
	const stats = await stat(file);
	if (stats.uid === 0 && !isForServiceGroup(stats))
		say(
			`${file} belongs to root. If the daemon runs as another user, give it to that one: sudo chown USER ${file}`,
		);
}

/** Finds the keys in a broken configuration too, and then says what is wrong with it. @throws {BadFileError} if they are not to be found */
export async function findKeys(configFile: string): Promise<Places> {
	const places = await findPlaces(configFile);
	if (places.broken !== undefined)
		say(
			visible(
				`${places.broken.message}\nUntil that is mended a running gate goes on with its old settings. The keys are those in ${places.keysFile}.\n`,
			),
		);
	return places;
}

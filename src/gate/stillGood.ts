import type { LoginRule } from "../config/logins.ts";
import type { KeyEntry } from "../keys/keyFile.ts";
import type { Credential, Key } from "../keys/keyring.ts";
import { type PeopleEntry, rulesFor } from "../keys/people.ts";
import { checkPolicy } from "./authorize.ts";
import type { Exchange } from "./exchange.ts";
import { currentCredential } from "./login.ts";
import { leaveTo } from "./person.ts";
import type { Refusal } from "./refusal.ts";
import type { Rules } from "./rules.ts";
import type { Person } from "./user.ts";

/** Whether what was let in may go on, once rules have been replaced or time has passed. */

const revoked: Refusal = {
	status: 401,
	reason: "revoked",
	message: "the key of this request has been revoked",
};
const personChanged: Refusal = {
	status: 403,
	reason: "person",
	message: "the rules of this key no longer leave this to the person",
};
const keyChanged: Refusal = {
	status: 503,
	reason: "key_changed",
	message: "the rules of this key have just been changed; try again",
	headers: ["retry-after", "1"],
};

/** Identity and limits take a while, and a reload may have come between. */
export function checkStillGood(
	rules: Rules,
	{ credential }: Exchange,
): Refusal | undefined {
	if (credential === undefined) return revoked;
	const current = currentCredential(rules, credential);
	if (current === undefined || current.key.canary) return revoked;
	return current.key.entry === credential.key.entry &&
		current.expiresAtMs === credential.expiresAtMs
		? undefined
		: keyChanged;
}

/**
 * The credential of a request as the rules in force have it, or why it is to be
 * cut: its key has been revoked or has expired, or no longer has the scope.
 *
 * @param isSent whether it is with Ollama. Then only that counts; before, a change of
 *   what the key allows does too, as the body was judged, or is, by the old rules
 */
export function judgeAgain(
	rules: Rules,
	{ knownCredential, routeMatch, person }: Exchange,
	isSent: boolean,
	nowMs: number,
): Credential | Refusal {
	const { route } = routeMatch;
	const { key } = knownCredential;
	const current = currentCredential(rules, knownCredential, route);
	if (current === undefined || current.key.canary) return revoked;
	if (current.key.name !== key.name) return revoked;
	const left = leaveTo(current, person, route);
	if ("status" in left) return personChanged;
	const refusal = checkPolicy(left, route, nowMs);
	if (refusal !== undefined) return refusal;
	const isChanged = !isSent && !allowsTheSame(key, current.key, person);
	return isChanged ? keyChanged : left;
}

/** What of an entry is not asked again once a request was let in, or is asked anew each time. */
const doesNotMatter = new Set<string>([
	"name",
	"sha256",
	"ollamaKey",
	"previous",
	"created",
	"expires",
	"scopes",
	"limits",
	"share",
	"priority",
] satisfies (keyof KeyEntry)[]);

function allowsTheSame(
	before: Key,
	now: Key,
	person: Person | undefined,
): boolean {
	return (
		before.entry === now.entry ||
		allowedBy(before, person) === allowedBy(now, person)
	);
}

/** What a key's entry, or a login's rules, let a person do with a scope that they have, to be compared. */
function allowedBy({ entry }: Key, person: Person | undefined): string {
	const read = JSON.parse(entry) as KeyEntry | LoginRule[];
	return JSON.stringify(
		Array.isArray(read)
			? read.map(({ scopes, models }) => ({ scopes, models }))
			: Object.entries({
					...read,
					people: read.people && peopleOf(read.people, person),
				}).filter(([name]) => !doesNotMatter.has(name)),
	);
}

/** Rules for others may change: somebody is added to an app every day. */
function peopleOf(
	{ rules, ...rest }: PeopleEntry,
	person: Person | undefined,
): object {
	if (rules === undefined || person === undefined || person.by === "login")
		return rest;
	const { email, role } = person;
	const own = rulesFor(rules, { email, role });
	return {
		...rest,
		own: own.map(({ scopes, models }) => ({ scopes, models })),
	};
}

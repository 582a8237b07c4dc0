import type { Place } from "./huJson.ts";

/** Worst first. */
export const severities = ["critical", "high", "medium", "low"] as const;

export type Severity = (typeof severities)[number];

export type FindingKind =
	| "allow-all"
	| "no-rules"
	| "wide-source"
	| "wide-destination"
	| "wide-ports"
	| "extra-port"
	| "other-protocol"
	| "untagged"
	| "address-source"
	| "server-opens"
	| "internet"
	| "funnel"
	| "wide-tag-owner"
	| "missing-tag-owner"
	| "failed-test"
	| "no-tests"
	| "duplicate"
	| "unknown"
	| "refused"
	| "not-understood";

/** One thing to change in a policy. */
export interface Finding extends Partial<Place> {
	readonly kind: FindingKind;
	readonly severity: Severity;
	readonly says: string;
	readonly change: string;
}

export function unique(names: readonly string[]): string[] {
	return [...new Set(names)];
}

/** So many names are listed; a rule can have thousands. */
const maxListed = 10;

/** Names for a sentence, each once, and how many more there are. */
export function join(names: readonly string[]): string {
	const all = unique(names);
	const more = all.length - maxListed;
	return more > 0
		? `${all.slice(0, maxListed).join(", ")} and ${more} more`
		: all.join(", ");
}

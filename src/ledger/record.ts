/** How a request may end. The ledger's file holds places in this list, so it only ever grows at its end. */
export const outcomes = [
	"ok",
	/** Ollama itself refused it, with a 4xx. */
	"rejected",
	"refused",
	"client_gone",
	"upstream_error",
	"cut",
] as const;

/** How a request ended. */
export type Outcome = (typeof outcomes)[number];

/** What is added up. Times are whole milliseconds. */
export interface Amounts {
	readonly requests: number;
	readonly tokensIn: number;
	readonly tokensOut: number;
	/** How long Ollama read the prompt and generated. */
	readonly gpuMs: number;
	readonly loadMs: number;
	readonly queueMs: number;
}

/**
 * One finished exchange of an inference route, or several of one hour that were
 * put together while no ledger took them. It never holds a key, a prompt or a reply.
 */
export interface UsageRecord extends Amounts {
	/** When it ended; epoch milliseconds. */
	readonly time: number;
	/** Whose it is, unique among all users. */
	readonly user: string;
	/** By what the user is known, such as `key` or `login`. */
	readonly userBy: string;
	/** The key's name. */
	readonly key: string;
	/** The tailnet device, where it was looked up. */
	readonly node: string | null;
	/** As the reply named it. */
	readonly model: string | null;
	readonly route: string;
	readonly outcome: Outcome;
}

export const amountNames = [
	"requests",
	"tokensIn",
	"tokensOut",
	"gpuMs",
	"loadMs",
	"queueMs",
] as const satisfies readonly (keyof Amounts)[];

const maxTextLength = 512;

/**
 * Reads what came over the ledger's socket: anyone who has taken a gate over may
 * send anything.
 *
 * @returns `undefined` where it is not a record
 */
export function readRecord(value: unknown): UsageRecord | undefined {
	if (typeof value !== "object" || value === null) return undefined;
	const one = value as Record<keyof UsageRecord, unknown>;
	const texts = [one.user, one.userBy, one.key, one.route];
	const namesOrNull = [one.node, one.model].filter((name) => name !== null);
	if (
		![...texts, ...namesOrNull].every(isText) ||
		!isCount(one.time) ||
		!amountNames.every((name) => isCount(one[name])) ||
		!outcomes.includes(one.outcome as Outcome)
	)
		return undefined;
	return value as UsageRecord;
}

function isText(value: unknown): boolean {
	return typeof value === "string" && value.length <= maxTextLength;
}

/** A sum of a million of them is still exact. */
function isCount(value: unknown): boolean {
	return Number.isSafeInteger(value) && (value as number) >= 0;
}

import type { HostState } from "./health.ts";

/** What decides whether a request goes to a host. */
export interface Candidate {
	readonly state: HostState;
	/** One of 2 does twice the work of one of 1. */
	readonly weight: number;
	/** Whether it has the model; `undefined` while it has not said what it has. */
	readonly hasModel: boolean | undefined;
	/** False for a while where it has answered this call for this model as one that it does not know. */
	readonly knowsRoute: boolean;
	readonly isLoaded: boolean;
	/** GPU time of what is to be done there first, as far as is known. */
	readonly waitingMs: number;
	/** What a load of a model takes there. */
	readonly loadMs: number;
	/** It is half-open, and a request is trying it. */
	readonly isTried: boolean;
}

/** The host that has answered this conversation, and what its prompt cache saves. */
export interface Sticky {
	readonly index: number;
	readonly worthMs: number;
}

/**
 * Which host a request goes to. It has the model; of those it is up, or else may
 * be; and of those whose turn would come first: what waits, by weight, and the
 * load of the model where it is not loaded, so that the one that has it loaded is
 * taken until its queue is longer than a load. A conversation stays where its
 * prompt is in the cache until what waits there is longer than that saves.
 *
 * @returns the candidate's index, or -1 if none will do
 */
export function chooseHost(
	candidates: readonly (Candidate | undefined)[],
	sticky?: Sticky,
): number {
	let best = -1;
	let bestRank = Number.POSITIVE_INFINITY;
	let bestMs = Number.POSITIVE_INFINITY;
	for (const [index, candidate] of candidates.entries()) {
		if (candidate === undefined) continue;
		const rank = rankOf(candidate);
		if (rank === Number.POSITIVE_INFINITY || rank > bestRank) continue;
		const waitMs = waitOf(candidate);
		if (rank === bestRank && waitMs >= bestMs) continue;
		best = index;
		bestRank = rank;
		bestMs = waitMs;
	}
	if (sticky === undefined || bestRank === Number.POSITIVE_INFINITY)
		return best;
	const own = candidates[sticky.index];
	return own !== undefined &&
		rankOf(own) === bestRank &&
		waitOf(own) - bestMs <= sticky.worthMs
		? sticky.index
		: best;
}

/** How soon its turn would come, in milliseconds. */
export function waitOf({
	waitingMs,
	weight,
	isLoaded,
	loadMs,
}: Candidate): number {
	return waitingMs / weight + (isLoaded ? 0 : loadMs);
}

/** The lower the better; Infinity for one that is not to be asked. */
export function rankOf({
	state,
	isTried,
	hasModel,
	knowsRoute,
}: Candidate): number {
	if (state === "down" || isTried) return Number.POSITIVE_INFINITY;
	// Where nobody has it, an Ollama says so in its own words.
	const has =
		hasModel === false ? 6 : !knowsRoute ? 4 : hasModel === undefined ? 2 : 0;
	return has + (state === "up" ? 0 : 1);
}

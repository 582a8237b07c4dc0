import type { MemberScan, Value } from "./memberScan.ts";
import { place } from "./usageFields.ts";

/** What a reply says about itself. */
export interface Usage {
	readonly model: string | undefined;
	/** All of the prompt's tokens, those from the cache too. */
	readonly tokensIn: number | undefined;
	/** The part of the prompt that Ollama had in its cache; Ollama tells it since 0.34. */
	readonly tokensCached: number | undefined;
	readonly tokensOut: number | undefined;
	/** How long the request waited for its model to load. The three times stand in Ollama's own replies alone. */
	readonly loadMs: number | undefined;
	/** How long the prompt was read. */
	readonly promptMs: number | undefined;
	/** How long tokens were generated. */
	readonly evalMs: number | undefined;
}

export type Counts = Omit<Usage, "model">;
/** Counts of a reply that tells none. */
export const noCounts: Counts = {
	tokensIn: undefined,
	tokensCached: undefined,
	tokensOut: undefined,
	loadMs: undefined,
	promptMs: undefined,
	evalMs: undefined,
};

/** Whether a reply tells how many tokens it has. Ollama leaves a count of 0 out behind its times. */
export function tellsTokens({ tokensOut, loadMs }: Counts): boolean {
	return tokensOut !== undefined || loadMs !== undefined;
}

/** What the members that were read say; `noCounts` itself if they tell none. */
export function readCounts(members: MemberScan): Counts {
	const tokensIn = toCount(members.value(place.tokensIn));
	const tokensOut = toCount(members.value(place.tokensOut));
	const beside = toCount(members.value(place.cachedBeside));
	const tokensCached = beside ?? toCount(members.value(place.cachedPart));
	const loadMs = toMs(members.value(place.loadNs));
	if (tokensIn === undefined && tokensOut === undefined && loadMs === undefined)
		return noCounts;
	return {
		tokensIn: tokensIn === undefined ? undefined : tokensIn + (beside ?? 0),
		tokensCached,
		tokensOut,
		loadMs,
		promptMs: toMs(members.value(place.promptNs)),
		evalMs: toMs(members.value(place.evalNs)),
	};
}

function toCount(value: Value | undefined): number | undefined {
	return typeof value === "number" ? value : undefined;
}

/** Ollama counts nanoseconds. */
function toMs(value: Value | undefined): number | undefined {
	return typeof value === "number" ? value / 1e6 : undefined;
}

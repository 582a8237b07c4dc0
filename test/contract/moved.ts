/**
 * What moved between the versions of Ollama that the contract is run on. A case
 * that holds for some of them asks here, so that whatever else a new version
 * does otherwise fails the case that says how it was.
 */
export const moved = {
	cachedTokens: {
		since: "0.34.0",
		says: "Usage tells the cached tokens of a prompt. In /v1/messages, input_tokens no longer counts them.",
	},
	compaction: {
		since: "0.34.0",
		says: "POST /v1/responses/compact is new. It needs a model with tools.",
	},
	codexProxy: {
		since: "0.34.0",
		says: "/api/codex/* is new. It passes calls of every method on to chatgpt.com and api.openai.com.",
	},
	responsesErrors: {
		since: "0.34.0",
		says: 'Errors of /v1/responses that are found before a model is looked for have the code "invalid_request_error", and words of their own.',
	},
	responsesInput: {
		since: "0.34.0",
		says: "/v1/responses without input is refused. It was answered before.",
	},
} as const;

export type Moved = keyof typeof moved;

/** Whether a version has what moved. */
export function has(version: string, what: Moved): boolean {
	return compareVersions(version, moved[what].since) >= 0;
}

/** The sentences of what a version does otherwise than the one before it. */
export function movedBetween(before: string, version: string): string[] {
	return Object.values(moved)
		.filter(
			({ since }) =>
				compareVersions(before, since) < 0 &&
				compareVersions(version, since) >= 0,
		)
		.map(({ says }) => says);
}

/** Below 0 if the first is older. */
export function compareVersions(a: string, b: string): number {
	const [first, second] = [a, b].map((text) => text.split(".").map(Number));
	for (const [index, number] of (first ?? []).entries()) {
		const difference = number - (second?.[index] ?? 0);
		if (difference !== 0) return difference;
	}
	return 0;
}

import type { Wanted } from "./memberScan.ts";
import type { Route } from "./routes.ts";

/** Where the wanted members of a line or a document are kept. */
export const place = {
	model: 0,
	error: 1,
	done: 2,
	tokensIn: 3,
	tokensOut: 4,
	/** Cached tokens that are a part of `tokensIn`. */
	cachedPart: 5,
	/** Cached tokens that `tokensIn` leaves out. */
	cachedBeside: 6,
	type: 7,
	responseId: 8,
	sequenceNumber: 9,
	loadNs: 10,
	promptNs: 11,
	evalNs: 12,
} as const;

const wanted = (members: Record<string, number | Wanted>): Wanted =>
	new Map(Object.entries(members));

const details = wanted({ cached_tokens: place.cachedPart });
export const usage = wanted({
	prompt_tokens: place.tokensIn,
	input_tokens: place.tokensIn,
	completion_tokens: place.tokensOut,
	output_tokens: place.tokensOut,
	prompt_tokens_details: details,
	input_tokens_details: details,
	cache_read_input_tokens: place.cachedBeside,
});
const native = wanted({
	model: place.model,
	error: place.error,
	done: place.done,
	prompt_eval_count: place.tokensIn,
	eval_count: place.tokensOut,
	prompt_eval_cached_count: place.cachedPart,
	load_duration: place.loadNs,
	prompt_eval_duration: place.promptNs,
	eval_duration: place.evalNs,
});
const openai = wanted({ model: place.model, error: place.error, usage });
/** `message_start` holds estimates only, so its `message.usage` is not wanted. */
const messages = wanted({
	type: place.type,
	model: place.model,
	message: wanted({ model: place.model }),
	usage,
});
const responses = wanted({
	type: place.type,
	sequence_number: place.sequenceNumber,
	model: place.model,
	usage,
	response: wanted({
		id: place.responseId,
		model: place.model,
		usage,
	}),
});

export function wantedOf({ path, family }: Route): Wanted {
	if (family === "native") return native;
	if (path === "/v1/responses") return responses;
	return family === "anthropic" ? messages : openai;
}

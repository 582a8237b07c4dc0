import { parseDuration } from "../duration.ts";
import type { Fields, Scalar } from "./bodyFinds.ts";

/** What a key may set in a body's `options`, and as `keep_alive`. */
export interface OptionRules {
	readonly deny: ReadonlySet<string>;
	/** The most that an option may be; `keep_alive` in seconds. */
	readonly max: ReadonlyMap<string, number>;
}

/**
 * The options by which one request can change what all others get: those that
 * load the model anew (api/types.go:Runner), how it decodes, and how long it
 * stays. Ollama has dropped the last three; a keys file may name them.
 */
export const optionNames = [
	"num_ctx",
	"num_batch",
	"num_gpu",
	"main_gpu",
	"num_thread",
	"num_predict",
	"num_keep",
	"use_mmap",
	"draft_num_predict",
	"keep_alive",
	"shift",
	"use_mlock",
	"low_vram",
	"numa",
] as const;

/**
 * Those of which 0 sets no limit, nor does what Ollama cuts down to 0: it leaves
 * them out of what it asks of llama-server (llm/llama_server.go).
 */
const boundless: ReadonlySet<string> = new Set([
	"num_batch",
	"num_predict",
	"num_thread",
]);

/** Those that stand at the top of a body and not in its `options`. */
export const topOptions: ReadonlySet<string> = new Set(["keep_alive", "shift"]);

/**
 * What sets the same at the top of a body below /v1: Ollama makes `num_predict` of
 * the first and third (openai/openai.go, openai/responses.go, anthropic/anthropic.go);
 * the rest is for servers that speak these calls alone: OpenAI's newer name,
 * llama.cpp's own (tools/server), and LM Studio's `ttl` in seconds.
 */
const otherNames: Readonly<Record<string, readonly string[]>> = {
	num_predict: [
		"max_tokens",
		"max_completion_tokens",
		"max_output_tokens",
		"n_predict",
	],
	num_keep: ["n_keep"],
	keep_alive: ["ttl"],
};
/** How many answers are made there, each as long as one may be: OpenAI's, llama.cpp's, vLLM's. */
const answerCounts = ["n", "n_cmpl", "best_of"];
/** A list of it asks for an answer to each: llama.cpp's and vLLM's way, where Ollama takes a text alone (openai/openai.go:CompletionRequest). */
const prompts = "prompt";
/** What `checkOptions` wants to know of a body's prompt: that it is not plain text. */
export const listsOfPrompts: readonly string[] = [prompts];
/** Fields at the top of a body below /v1 that `checkOptions` looks at. */
export const optionsBelowV1: readonly string[] = [
	...Object.values(otherNames).flat(),
	...answerCounts,
];

/** As the keys file writes them. */
export interface OptionEntry {
	readonly denyOptions?: readonly string[];
	readonly maxOptions?: Readonly<Record<string, number | string>>;
}

/** The rules of a key that is restricted to models and says nothing of options. */
const defaults: OptionEntry = {
	denyOptions: [
		"num_batch",
		"num_gpu",
		"main_gpu",
		"num_thread",
		"use_mmap",
		"draft_num_predict",
		"shift",
	],
	maxOptions: { num_ctx: 32_768, keep_alive: "1h" },
};

/** The rules in force for a key, or `undefined` if it has none. */
export function readOptionRules(
	entry: OptionEntry,
	isRestricted: boolean,
): OptionRules | undefined {
	const { denyOptions, maxOptions } =
		entry.denyOptions === undefined && entry.maxOptions === undefined
			? isRestricted
				? defaults
				: {}
			: entry;
	const deny = new Set(denyOptions ?? []);
	const max = new Map<string, number>();
	for (const [name, value] of Object.entries(maxOptions ?? {})) {
		const seconds =
			typeof value === "string" ? (parseDuration(value) ?? 0) / 1000 : value;
		max.set(name, seconds);
	}
	return deny.size === 0 && max.size === 0 ? undefined : { deny, max };
}

/**
 * Whether the options of a body are within a key's rules.
 *
 * @param fields what the scan found: `keep_alive`, `options`, `options.num_ctx` …,
 *   and below /v1 what else sets the same (`optionsBelowV1`, `listsOfPrompts`)
 */
export function checkOptions(
	keyName: string,
	rules: OptionRules | undefined,
	fields: Fields,
): Breach | undefined {
	if (rules === undefined) return undefined;
	for (const option of optionNames) {
		const own = topOptions.has(option) ? option : `options.${option}`;
		for (const field of [own, ...(otherNames[option] ?? [])]) {
			const value = fields.get(field);
			if (value === null || !fields.has(field)) continue;
			const shown = field === own ? option : `${field} (${option})`;
			const breach = checkOption(keyName, rules, option, shown, value);
			if (breach !== undefined) return breach;
		}
	}
	return checkAnswers(keyName, rules, fields);
}

interface Breach {
	readonly status: number;
	readonly reason: string;
	readonly message: string;
}

const forbidden = (keyName: string, message: string): Breach => ({
	status: 403,
	reason: "option",
	message: `the key "${keyName}" ${message}`,
});
const unclear = (message: string): Breach => ({
	status: 400,
	reason: "unclear_body",
	message,
});

/** @param shown how the body names it */
function checkOption(
	keyName: string,
	rules: OptionRules,
	option: string,
	shown: string,
	value: Scalar | undefined,
): Breach | undefined {
	const isTime = option === "keep_alive";
	const forbid = (message: string) => forbidden(keyName, message);
	if (rules.deny.has(option)) return forbid(`may not set ${shown}`);
	const max = rules.max.get(option);
	if (max === undefined) return undefined;
	const amount = isTime ? keepAliveSeconds(value) : value;
	if (typeof amount !== "number" || !Number.isFinite(amount))
		return unclear(
			`the body's ${shown} is not a ${isTime ? "duration" : "number"}`,
		);
	if (amount < 0)
		return forbid(
			isTime
				? `may not keep a model for good (${shown} below 0)`
				: `may not set ${shown} below 0`,
		);
	if (isTime && amount < Math.min(shortestKeepAlive, max))
		return forbid(
			`may not unload a model for all: ${shown} is ${shortestKeepAlive} s at the least`,
		);
	if (amount < 1 && boundless.has(option))
		return forbid(
			`may not set ${shown} below 1, which sets no limit in Ollama`,
		);
	if (amount > max)
		return forbid(
			`may set ${shown} to ${max}${isTime ? " s" : ""} at the most`,
		);
	return undefined;
}

/** Where an answer's length is limited, there is one answer to a request. */
function checkAnswers(
	keyName: string,
	{ deny, max }: OptionRules,
	fields: Fields,
): Breach | undefined {
	if (!max.has("num_predict") && !deny.has("num_predict")) return undefined;
	for (const field of answerCounts) {
		const value = fields.get(field);
		if (value === null || !fields.has(field)) continue;
		if (typeof value !== "number")
			return unclear(`the body's ${field} is not a number`);
		if (value > 1)
			return forbidden(
				keyName,
				`may ask for one answer at a time (${field}), as their length is limited (num_predict)`,
			);
	}
	if (fields.has(prompts))
		return forbidden(
			keyName,
			"may send one prompt at a time, as a text, as the length of answers is limited (num_predict)",
		);
	return undefined;
}

/** In seconds. Below, the next request of anybody's finds the model unloaded. */
const shortestKeepAlive = 1;
/** Go counts a duration in 63 bits of nanoseconds. */
const longestSeconds = 2 ** 63 / 1e9;

const secondsIn: Readonly<Record<string, number>> = {
	ns: 1e-9,
	us: 1e-6,
	"\u00b5s": 1e-6,
	"\u03bcs": 1e-6,
	ms: 1e-3,
	s: 1,
	m: 60,
	h: 3600,
};

const durationForm =
	/^([+-]?)(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|\u00b5s|\u03bcs|ms|s|m|h))+$/;
const durationPart = /(\d+(?:\.\d*)?|\.\d+)(ns|us|\u00b5s|\u03bcs|ms|s|m|h)/g;

/**
 * Reads `keep_alive` as Ollama does (api/types.go:Duration): seconds, or Go's
 * form such as `"1h30m"` (time.ParseDuration), with a micro sign or a Greek mu.
 */
export function keepAliveSeconds(
	value: Scalar | undefined,
): number | undefined {
	if (typeof value === "number") return value;
	if (typeof value !== "string") return undefined;
	if (/^[+-]?0$/.test(value)) return 0;
	const match = durationForm.exec(value);
	if (match === null) return undefined;
	let seconds = 0;
	for (const [, amount, unit] of value.matchAll(durationPart))
		seconds += Number(amount) * (secondsIn[unit ?? ""] ?? Number.NaN);
	if (seconds >= longestSeconds) return undefined;
	return match[1] === "-" ? -seconds : seconds;
}

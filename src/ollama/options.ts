import { parseDuration } from "../duration.ts";
import type { Scalar } from "./bodyFinds.ts";

/** What a key may set in a body's `options`, and as `keep_alive`. */
export interface OptionRules {
	readonly deny: ReadonlySet<string>;
	/** The most that an option may be; `keep_alive` in seconds. */
	readonly max: ReadonlyMap<string, number>;
}

/**
 * The options by which one request can change what all others get: those that
 * load the model anew (api/types.go:Runner), how it decodes, and how long it
 * stays. The last three are no longer Ollama's; a keys file may name them.
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
 * @param fields what the scan found: `keep_alive`, `options`, `options.num_ctx` …
 */
export function checkOptions(
	keyName: string,
	rules: OptionRules | undefined,
	fields: ReadonlyMap<string, Scalar | undefined>,
): { status: number; reason: string; message: string } | undefined {
	if (rules === undefined) return undefined;
	const forbid = (message: string) => ({
		status: 403,
		reason: "option",
		message: `the key "${keyName}" ${message}`,
	});
	for (const option of optionNames) {
		const field = topOptions.has(option) ? option : `options.${option}`;
		if (!fields.has(field)) continue;
		const value = fields.get(field);
		if (value === null) continue;
		if (rules.deny.has(option)) return forbid(`may not set ${option}`);
		const max = rules.max.get(option);
		if (max === undefined) continue;
		const amount = option === "keep_alive" ? keepAliveSeconds(value) : value;
		if (typeof amount !== "number" || !Number.isFinite(amount))
			return {
				status: 400,
				reason: "unclear_body",
				message: `the body's ${option} is no ${option === "keep_alive" ? "duration" : "number"}`,
			};
		if (amount < 0)
			return forbid(
				option === "keep_alive"
					? "may not keep a model for good (keep_alive below 0)"
					: `may not set ${option} below 0`,
			);
		if (option === "keep_alive" && amount < Math.min(shortestKeepAlive, max))
			return forbid(
				`may not unload a model for all: keep_alive is ${shortestKeepAlive} s at the least`,
			);
		if (amount < 1 && boundless.has(option))
			return forbid(
				`may not set ${option} below 1, which sets no limit in Ollama`,
			);
		if (amount > max)
			return forbid(
				`may set ${option} to ${max}${option === "keep_alive" ? " s" : ""} at the most`,
			);
	}
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

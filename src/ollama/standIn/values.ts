import type { Body } from "./body.ts";

/** What Go says of an option or a duration that it cannot take. */
export class WrongValue extends Error {}

const longestNs = 2 ** 63;

/**
 * `keep_alive` in milliseconds (api/types.go:Duration): a number of seconds, or
 * Go's form. Below 0 is for good, and what is longer than Go counts turns to
 * less than nothing.
 *
 * @throws WrongValue in Go's words
 */
export function readKeepAlive(value: unknown): number | undefined {
	if (value === undefined) return undefined;
	if (typeof value === "number") {
		if (value < 0) return Number.POSITIVE_INFINITY;
		const ns = Math.trunc(value * 1e9);
		return ns >= longestNs ? -1 : ns / 1e6;
	}
	if (typeof value !== "string")
		throw new WrongValue(`Unsupported type: '${goTypeOf(value)}'`);
	const ns = parseDuration(value);
	return ns < 0 ? Number.POSITIVE_INFINITY : ns / 1e6;
}

function goTypeOf(value: unknown): string {
	if (typeof value === "boolean") return "bool";
	return Array.isArray(value) ? "[]interface {}" : "map[string]interface {}";
}

const unitsNs: Readonly<Record<string, number>> = {
	ns: 1,
	us: 1e3,
	"\u00b5s": 1e3,
	"\u03bcs": 1e3,
	ms: 1e6,
	s: 1e9,
	m: 60e9,
	h: 3600e9,
};

/** time.ParseDuration, in nanoseconds. */
function parseDuration(text: string): number {
	const [, sign, rest = ""] = /^([+-]?)(.*)$/s.exec(text) ?? [];
	const invalid = () =>
		new WrongValue(`time: invalid duration ${JSON.stringify(text)}`);
	if (rest === "0") return 0;
	if (rest === "") throw invalid();
	let ns = 0;
	for (let left = rest; left !== ""; ) {
		const [all, digits = "", unit = ""] =
			/^(\d+(?:\.\d*)?|\.\d+)([^\d.]*)/.exec(left) ?? [];
		if (all === undefined) throw invalid();
		if (unit === "")
			throw new WrongValue(
				`time: missing unit in duration ${JSON.stringify(text)}`,
			);
		const unitNs = unitsNs[unit];
		if (unitNs === undefined)
			throw new WrongValue(
				`time: unknown unit ${JSON.stringify(unit)} in duration ${JSON.stringify(text)}`,
			);
		ns += Math.trunc(Number(digits) * unitNs);
		if (ns >= longestNs) throw invalid();
		left = left.slice(all.length);
	}
	return sign === "-" ? -ns : ns;
}

const integerOptions = new Set([
	"num_ctx",
	"num_batch",
	"num_gpu",
	"main_gpu",
	"num_thread",
	"draft_num_predict",
	"num_keep",
	"seed",
	"num_predict",
	"top_k",
	"repeat_last_n",
]);
const floatOptions = new Set([
	"top_p",
	"min_p",
	"typical_p",
	"temperature",
	"repeat_penalty",
	"presence_penalty",
	"frequency_penalty",
]);
const launchOptions = new Set([
	"num_ctx",
	"num_batch",
	"num_gpu",
	"main_gpu",
	"use_mmap",
	"num_thread",
	"draft_num_predict",
]);

/** What a request's options come to. */
export interface Options {
	/** Those that a runner is started with, in a form to compare. */
	readonly launch: string;
	readonly contextLength: number;
	readonly tokens: number | undefined;
}

/**
 * A request's `options` (api/types.go:FromMap). What Ollama does not know is ignored.
 *
 * @throws WrongValue for a value of another type
 */
export function readOptions(
	options: Body,
	limits: { readonly defaultContext: number; readonly longestContext: number },
): Options {
	const launch: Record<string, unknown> = {};
	let tokens: number | undefined;
	const refuse = (name: string, type: string) => {
		throw new WrongValue(
			`option ${JSON.stringify(name)} must be of type ${type}`,
		);
	};
	for (const [name, value] of options.members) {
		if (value === null) continue;
		if (integerOptions.has(name) && typeof value !== "number")
			refuse(name, "integer");
		if (floatOptions.has(name) && typeof value !== "number")
			refuse(name, "float32");
		if (name === "use_mmap" && typeof value !== "boolean")
			refuse(name, "boolean");
		if (name === "num_predict") tokens = Math.trunc(Number(value));
		if (name === "stop" && !Array.isArray(value)) refuse(name, "array");
		if (launchOptions.has(name))
			launch[name] = typeof value === "number" ? Math.trunc(value) : value;
	}
	const { num_ctx: wanted = limits.defaultContext } = launch;
	const contextLength = Math.min(
		Math.max(4, Number(wanted)),
		limits.longestContext,
	);
	launch.num_ctx = contextLength;
	return {
		launch: JSON.stringify(Object.entries(launch).sort()),
		contextLength,
		tokens,
	};
}

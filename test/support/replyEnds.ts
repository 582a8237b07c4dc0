import type { ReplyFormat } from "../../src/ollama/errors.ts";
import type { Usage } from "../../src/ollama/replyCounts.ts";
import { matchRoute, type Route } from "../../src/ollama/routes.ts";
import { ReplyScan } from "../../src/ollama/usage.ts";

/** What a reply says about its end. */
export interface ReplyEnd {
	readonly usage: Usage;
	readonly isComplete: boolean;
	readonly endsWithError: boolean;
}

export function routeOf(path: string): Route {
	const match = matchRoute("POST", path);
	if (match.kind !== "route") throw new Error(`no route ${path}`);
	return match.route;
}

/** Reads a reply as the gate does, in pieces that end at these places. */
export function readEnd(
	path: string,
	format: ReplyFormat,
	bytes: Buffer,
	cuts: readonly number[] = [],
): ReplyEnd & {
	readonly lastByte: number | undefined;
	readonly textEvents: number;
} {
	const scan = new ReplyScan(routeOf(path), format);
	let from = 0;
	for (const cut of [...cuts, bytes.length]) {
		scan.push(bytes, from, cut);
		from = cut;
	}
	const end = {
		usage: scan.usage(),
		isComplete: scan.isComplete,
		endsWithError: scan.endsWithError,
		lastByte: scan.lastByte,
		textEvents: scan.textEvents,
	};
	scan.release();
	return end;
}

/** The places at which pieces of a size end. */
export function everyBytes(length: number, sizeBytes: number): number[] {
	return Array.from(
		{ length: Math.floor(length / sizeBytes) },
		(_, i) => (i + 1) * sizeBytes,
	).filter((at) => at < length);
}

type Members = Record<string, unknown>;

const isMembers = (value: unknown): value is Members =>
	typeof value === "object" && value !== null && !Array.isArray(value);

function parse(text: string): Members | undefined {
	try {
		const value: unknown = JSON.parse(text);
		return isMembers(value) ? value : undefined;
	} catch {
		return undefined;
	}
}

const count = (value: unknown) =>
	typeof value === "number" && Number.isSafeInteger(value) && value >= 0
		? value
		: undefined;

const within = (value: unknown): Members => (isMembers(value) ? value : {});

interface Counts {
	tokensIn: number | undefined;
	tokensCached: number | undefined;
	tokensOut: number | undefined;
	loadMs: number | undefined;
	promptMs: number | undefined;
	evalMs: number | undefined;
}

const noCounts: Counts = {
	tokensIn: undefined,
	tokensCached: undefined,
	tokensOut: undefined,
	loadMs: undefined,
	promptMs: undefined,
	evalMs: undefined,
};

function countsOf(path: string, whole: Members): Counts {
	const own = path.startsWith("/api/");
	const usage = own
		? whole
		: within(
				path === "/v1/responses"
					? (whole.usage ?? within(whole.response).usage)
					: whole.usage,
			);
	const given = count(
		own ? usage.prompt_eval_count : (usage.prompt_tokens ?? usage.input_tokens),
	);
	const tokensOut = count(
		own ? usage.eval_count : (usage.completion_tokens ?? usage.output_tokens),
	);
	const ms = (name: string) => {
		const ns = own ? count(whole[name]) : undefined;
		return ns === undefined ? undefined : ns / 1e6;
	};
	const loadMs = ms("load_duration");
	if (given === undefined && tokensOut === undefined && loadMs === undefined)
		return noCounts;
	const beside = own ? undefined : count(usage.cache_read_input_tokens);
	const part = own
		? usage.prompt_eval_cached_count
		: within(usage.prompt_tokens_details ?? usage.input_tokens_details)
				.cached_tokens;
	return {
		tokensIn: given === undefined ? undefined : given + (beside ?? 0),
		tokensCached: beside ?? count(part),
		tokensOut,
		loadMs,
		promptMs: ms("prompt_eval_duration"),
		evalMs: ms("eval_duration"),
	};
}

function modelOf(path: string, whole: Members): string | undefined {
	const places = [whole];
	if (path === "/v1/responses") places.push(within(whole.response));
	if (path === "/v1/messages") places.push(within(whole.message));
	for (const { model } of places)
		if (typeof model === "string" && model !== "" && model.length <= 256)
			return model;
	return undefined;
}

const hasError = (whole: Members | undefined) =>
	whole !== undefined && (whole.error ?? null) !== null;

/**
 * The same, from the whole text: what the gate's reader is held against. The text
 * must be one character a byte, and a name must not stand twice in an object.
 */
export function readEndSlowly(
	path: string,
	format: ReplyFormat,
	text: string,
): ReplyEnd {
	if (format === "opaque") {
		const whole = parse(text);
		return {
			usage: {
				model: whole && modelOf(path, whole),
				...(whole === undefined ? noCounts : countsOf(path, whole)),
			},
			isComplete: true,
			endsWithError: false,
		};
	}
	return format === "ndjson"
		? readLinesSlowly(path, text)
		: readEventsSlowly(path, text);
}

/** The lines, each with how many bytes come behind its last one. */
function linesOf(text: string): { line: string; behind: number }[] {
	let at = 0;
	return text.split("\n").map((line) => {
		at += line.length + 1;
		return { line, behind: text.length - (at - 1) };
	});
}

function readLinesSlowly(path: string, text: string): ReplyEnd {
	const lines = linesOf(text).filter(({ line }) => line.trim() !== "");
	const last = lines.at(-1);
	const whole =
		last !== undefined && last.behind <= 4096 ? parse(last.line) : undefined;
	const isDone = whole?.done === true;
	const isError = hasError(whole);
	return {
		usage: {
			model: firstModel(
				path,
				lines.map(({ line }) => parse(line)),
			),
			...(isDone && whole !== undefined ? countsOf(path, whole) : noCounts),
		},
		isComplete:
			!["/api/chat", "/api/generate"].includes(path) || isDone || isError,
		endsWithError: isError,
	};
}

function firstModel(
	path: string,
	members: readonly (Members | undefined)[],
): string | undefined {
	return members
		.slice(0, 4)
		.map((one) => one && modelOf(path, one))
		.find((model) => model !== undefined);
}

const endings: Record<string, { good: string[]; bad: string[] }> = {
	"/v1/messages": { good: ["message_stop"], bad: ["error"] },
	"/v1/responses": {
		good: ["response.completed", "response.incomplete"],
		bad: ["response.failed", "error"],
	},
};

function readEventsSlowly(path: string, text: string): ReplyEnd {
	const ending = endings[path];
	const isMark = (data: string) => /^ ?\[DONE\]\r?$/.test(data);
	const events: { name: string; data: string; behind: number }[] = [];
	let name = "";
	for (const { line, behind } of linesOf(text)) {
		if (line.trim() === "") name = "";
		else if (line.startsWith("event:")) name = line.slice(6).trim();
		else if (line.startsWith("data:")) {
			const data = line.slice(5);
			// Where an event has the last word, some servers write it behind that.
			if (ending === undefined || !isMark(data))
				events.push({ name, data, behind });
		}
	}
	const parsed = events.map(({ data }) => parse(data));
	let counts = noCounts;
	let [isEnd, isError] = [false, false];
	for (const [index, event] of events.entries()) {
		const whole = parsed[index];
		const isLast = index === events.length - 1;
		if (index < events.length - 2 || event.behind > 4096) continue;
		if (ending === undefined) {
			const found = whole === undefined ? noCounts : countsOf(path, whole);
			if ((found.tokensIn ?? 0) + (found.tokensOut ?? 0) > 0) counts = found;
			const isFault =
				whole !== undefined && (hasError(whole) || event.name === "error");
			// vLLM writes its mark behind an error, too.
			isError = isFault || (isMark(event.data) && isError);
			isEnd = isError || isMark(event.data);
		} else {
			const type =
				event.name || (typeof whole?.type === "string" ? whole.type : "");
			isError = whole !== undefined && ending.bad.includes(type);
			isEnd = isError || (whole !== undefined && ending.good.includes(type));
			if (whole !== undefined && (isEnd || type === "message_delta")) {
				const found = countsOf(path, whole);
				if (found !== noCounts) counts = found;
			}
		}
		if (!isLast) isEnd = false;
		if (!isLast && ending !== undefined) isError = false;
	}
	return {
		usage: { model: firstModel(path, parsed), ...counts },
		isComplete: isEnd,
		endsWithError: isError,
	};
}

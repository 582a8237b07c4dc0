import type { ReplyFormat } from "./errors.ts";

/** Streams that have a mark of their own at their end. */
const nativeStreams = new Set(["/api/generate", "/api/chat"]);
const openaiStreams = new Set(["/v1/chat/completions", "/v1/completions"]);
/** The events that end a stream, and whether it has failed then. */
export const lastEvents = new Map([
	[
		"/v1/messages",
		new Map([
			["message_stop", false],
			["error", true],
		]),
	],
	[
		"/v1/responses",
		new Map([
			["response.completed", false],
			["response.incomplete", false],
			["response.failed", true],
			["error", true],
		]),
	],
]);

/** Whether a reply of a call in this format says when it has come to its end. */
export function hasMark(path: string, format: ReplyFormat): boolean {
	if (format === "ndjson") return nativeStreams.has(path);
	return format === "sse" && (openaiStreams.has(path) || lastEvents.has(path));
}

/** Whether a line is the last of OpenAI's streams. */
export function isDoneLine(line: string): boolean {
	return /^data: ?\[DONE\]\r?$/.test(line);
}

/** Whether there is an event of a stream in this text, which comments and a mark of another's are not. */
export function hasEvent(path: string, text: string): boolean {
	const lines = text.match(/^data:.*/gm) ?? [];
	return lastEvents.has(path) ? !lines.every(isDoneLine) : lines.length > 0;
}

const lf = 0x0a;

/** Where the last line or event begins, unless it is one that has begun before `start`. */
export function lastBeginning(
	format: ReplyFormat,
	bytes: Buffer,
	start: number,
	end: number,
): number | undefined {
	for (let at = end; at > start; ) {
		at = bytes.lastIndexOf(lf, at - 1);
		if (at < start) break;
		// An event ends with an empty line.
		if (format === "ndjson" || (at > start && bytes[at - 1] === lf))
			return at + 1;
	}
	return undefined;
}

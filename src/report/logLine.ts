import { styleText } from "node:util";
import { visibleLine } from "../visible.ts";

/** One line of the gate's log, parsed; docs/logs.md has what may be in it. */
export type LogEntry = Readonly<Record<string, unknown>>;

/** Reads a line of the gate's log, each of which has a time and a msg; `undefined` if it is none, such as a message of another program. */
export function parseLogLine(line: string): LogEntry | undefined {
	try {
		const entry = Object(JSON.parse(line)) as LogEntry;
		return typeof entry.time === "string" && typeof entry.msg === "string"
			? entry
			: undefined;
	} catch {
		return undefined;
	}
}

/** What a request came to: status, call, outcome, and how long it took. Coloured by the status. */
export function describeRequest(entry: LogEntry): string {
	const status = Number(entry.status);
	const colour = status < 400 ? "green" : status < 500 ? "yellow" : "red";
	const parts = [
		`${entry.reason ?? entry.outcome}${entry.durationMs === undefined ? "" : ` in ${entry.durationMs} ms`}`,
		typeof entry.ttftMs === "number"
			? `first byte after ${entry.ttftMs} ms`
			: "",
		typeof entry.tokensOut === "number" ? `${entry.tokensOut} tokens` : "",
	];
	const said = parts.filter((part) => part !== "").join(", ");
	return `${styleText(colour, String(status))} ${visibleLine(`${entry.route ?? entry.path ?? "(no such route)"}: ${said}`)}`;
}

/** A line of the log for people: when, who, and what became of it. */
export function describeLogLine(entry: LogEntry): string {
	const time = shortTime(entry.time);
	if (entry.msg === "request") {
		const who = [
			entry.key ?? "no key",
			entry.person,
			entry.node ?? entry.ip,
			entry.model,
		]
			.filter((part) => typeof part === "string")
			.join(" ");
		return `${time} ${describeRequest(entry)} ${styleText("dim", visibleLine(`(${who})`))}`;
	}
	const { time: _, level, msg, ...facts } = entry;
	const colour =
		level === "error" ? "red" : level === "warn" ? "yellow" : "dim";
	const said = Object.entries(facts)
		.map(([name, value]) =>
			typeof value === "string"
				? `${name}=${value}`
				: `${name}=${JSON.stringify(value)}`,
		)
		.join(" ");
	return `${time} ${styleText(colour, String(level))} ${visibleLine(`${msg ?? ""} ${said}`.trim())}`;
}

/** `2030-01-01T12:00:00.123Z` as `2030-01-01 12:00:00Z`. */
function shortTime(time: unknown): string {
	return typeof time === "string"
		? visibleLine(`${time.slice(0, 19).replace("T", " ")}Z`)
		: "-";
}

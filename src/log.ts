import { type DestinationStream, type Logger, pino } from "pino";
import type { LogLevel } from "./config/load.ts";

/** The daemon's log: one JSON object a line. */
export interface Log extends Logger {}

/** Where log lines go, and how to make sure that they got there. */
export interface LogSink extends DestinationStream {
	flush?(done: (error?: Error) => void): void;
}

/**
 * Standard output, written in the background and at most 50 ms late: a reader that hangs must not
 * stop the streams. What it does not take is kept up to 16 MiB, then dropped.
 */
export function standardOutput(): LogSink {
	const sink = pino.destination({
		dest: 1,
		sync: false,
		// A system call for each line costs more than making it.
		minLength: 4096,
		periodicFlush: 50,
		maxLength: 16 * 2 ** 20,
	});
	// A closed pipe (journald restarting, `| head`) is no reason to stop serving.
	sink.on("error", () => {});
	return sink;
}

/** Makes a log of a level on a sink. Lines carry ISO times and level names. */
export function createLog(level: LogLevel, sink: LogSink): Log {
	return pino(
		{
			level,
			base: null,
			timestamp: pino.stdTimeFunctions.isoTime,
			formatters: { level: (label) => ({ level: label }) },
		},
		sink,
	);
}

/** Resolves once everything that was logged has been written, or after a second. */
export function flushLog(sink: LogSink): Promise<void> {
	return new Promise((resolve) => {
		if (sink.flush === undefined) return resolve();
		const timer = setTimeout(resolve, 1_000);
		sink.flush(() => {
			clearTimeout(timer);
			resolve();
		});
	});
}

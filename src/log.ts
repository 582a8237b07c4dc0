import { type DestinationStream, type Logger, pino } from "pino";

/** What is logged from; as `log.level` of the configuration has it. */
export type LogLevel =
	| "trace"
	| "debug"
	| "info"
	| "warn"
	| "error"
	| "fatal"
	| "silent";

/** The daemon's log: one JSON object a line. */
export interface Log extends Logger {}

/** Where log lines go, and how to make sure that they got there. */
export interface LogSink extends DestinationStream {
	flush?(done: (error?: Error) => void): void;
	/** Forgets what has not been written. */
	destroy?(): void;
	/** Lines that were dropped since nobody took them; none where it is not counted. */
	readonly lostLines?: number;
}

/** So many characters of lines are handed on together, or what there is after so long. */
const batchLength = 16 * 1024;
const batchMs = 50;

/**
 * Standard output, written in the background and at most 50 ms late: a reader that hangs must not
 * stop the streams. What it does not take is kept up to 16 MiB, then dropped and counted.
 */
export function standardOutput(): LogSink {
	let batch = "";
	let timer: NodeJS.Timeout | undefined;
	// Heard before pino's own handler, which writes what pino has.
	process.once("exit", handOn);
	const out = pino.destination({
		dest: 1,
		sync: false,
		// With 0, its flush would wait for nothing.
		minLength: 1,
		maxLength: 16 * 2 ** 20,
	});
	// A closed pipe (journald restarting, `| head`) is not a reason to stop serving.
	out.on("error", () => {});
	let lostLines = 0;
	let saidLostLines = 0;
	out.on("drop", (lines: string) => {
		lostLines += lines.split("\n").length - 1;
	});
	// All that was kept has been written.
	out.on("drain", () => {
		if (lostLines === saidLostLines) return;
		const line = {
			level: "warn",
			time: new Date().toISOString(),
			lines: lostLines - saidLostLines,
			msg: "log lines were lost: nobody took them",
		};
		saidLostLines = lostLines;
		out.write(`${JSON.stringify(line)}\n`);
	});

	/** pino's destination measures all that it holds with each line, so it gets few large pieces. */
	function handOn(): void {
		clearTimeout(timer);
		timer = undefined;
		const lines = batch;
		batch = "";
		if (lines !== "") out.write(lines);
	}

	return {
		write(line) {
			batch += line;
			if (batch.length >= batchLength) handOn();
			else timer ??= setTimeout(handOn, batchMs).unref();
		},
		flush(done) {
			handOn();
			out.flush(done);
		},
		destroy() {
			batch = "";
			clearTimeout(timer);
			out.destroy();
		},
		get lostLines() {
			return lostLines;
		},
	};
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

/**
 * Resolves once everything that was logged has been written, or after a second.
 *
 * @returns whether the second was enough
 */
export function flushLog(sink: LogSink): Promise<boolean> {
	return new Promise((resolve) => {
		if (sink.flush === undefined) return resolve(true);
		const timer = setTimeout(resolve, 1_000, false);
		// An error is one of fsync(2), which pipes do not know, or of a disk without room.
		sink.flush(() => {
			clearTimeout(timer);
			resolve(true);
		});
	});
}

/**
 * Ends the process, with exit code 0. Where nobody takes the log, one of Node's
 * threads hangs in writing it, and a regular end would wait for that thread: then
 * a signal has to do it.
 */
export async function endProcess(sink: LogSink): Promise<never> {
	if (!(await flushLog(sink))) process.kill(process.pid, "SIGKILL");
	// Or the sink would try at the exit to write what the disk has no room for, again and again.
	sink.destroy?.();
	process.exit(0);
}

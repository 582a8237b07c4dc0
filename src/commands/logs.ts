import { type ChildProcess, spawn } from "node:child_process";
import { createReadStream } from "node:fs";
import { access, constants } from "node:fs/promises";
import { createInterface } from "node:readline";
import type { Readable } from "node:stream";
import { parseDuration } from "../duration.ts";
import { exitCodes, Finding, UsageError } from "../errors.ts";
import { parseTime } from "../keys/keyFile.ts";
import { outcomes } from "../ledger/record.ts";
import {
	type ModelPattern,
	parseModelName,
	parseModelPattern,
} from "../ollama/modelName.ts";
import { withoutHidden } from "../report/json.ts";
import {
	describeLogLine,
	type LogEntry,
	parseLogLine,
} from "../report/logLine.ts";
import { visibleLine } from "../visible.ts";
import { type Command, readArgs } from "./command.ts";

/** How far back the journal is read where nobody says. */
const defaultSince = "24h";

export const logs: Command = {
	help: `
Usage: sudo llamagate logs [FILE] [--follow] [--since 24h] [--key NAME]
                           [--model PATTERN] [--outcome LIST] [--json]

Reads the journal of llamagate.service, or a file (- is standard input) with the
lines that "llamagate serve" writes. Times are UTC. Lines other than requests'
are shown too, unless you ask for a key, a model or an outcome.

  -f, --follow       go on, and show what comes; Ctrl-C ends it
  --since WHEN       a duration such as 2h, or a time such as
                     2030-01-01T12:00:00Z (default: ${defaultSince} of the journal, all of
                     a file)
  --key NAME         requests of this key; - is those without a known key
  --model PATTERN    requests for these models, such as qwen3:*
  --outcome LIST     of ${outcomes.join(",")}
  --json             print the lines as they stand in the log

Exit codes: 0 done, 1 the log cannot be read, 2 usage

Example: sudo llamagate logs --follow --outcome refused,cut
`,
	async run(args) {
		const { values, positionals } = readArgs(
			args,
			{
				follow: { type: "boolean", short: "f", default: false },
				since: { type: "string" },
				key: { type: "string" },
				model: { type: "string" },
				outcome: { type: "string" },
				json: { type: "boolean", default: false },
			},
			[],
			["FILE"],
		);
		const [file] = positionals;
		const sinceMs = readSince(
			values.since ?? (file === undefined ? defaultSince : undefined),
		);
		const wanted = readFilter(values, sinceMs);
		const source =
			file === undefined
				? readJournal(sinceMs, values.follow)
				: await readFile(file, values.follow);
		// To read only the first lines, as head does, is not an error.
		process.stdout.on("error", () => process.exit(exitCodes.ok));
		const seen = { lines: 0, ofTheGate: 0, shown: 0 };
		for await (const line of linesOf(source)) {
			seen.lines++;
			const entry = parseLogLine(line);
			if (entry === undefined) continue;
			seen.ofTheGate++;
			if (!wanted(entry)) continue;
			seen.shown++;
			const text = values.json ? withoutHidden(line) : describeLogLine(entry);
			// A terminal that is slower than the file would have all of it wait in memory.
			if (!process.stdout.write(`${text}\n`))
				await new Promise((resolve) => process.stdout.once("drain", resolve));
		}
		// Whoever follows has ended it.
		if (seen.shown === 0 && !values.follow)
			process.stderr.write(
				`${visibleLine(describeNothing(seen, file, values.since))}\n`,
			);
		return exitCodes.ok;
	},
};

/** Why nothing was shown, and where else to look. */
function describeNothing(
	{ lines, ofTheGate }: { lines: number; ofTheGate: number },
	file: string | undefined,
	since: string | undefined,
): string {
	if (ofTheGate > 0)
		return `None of the ${ofTheGate} lines of the log is one that was asked for.`;
	if (file === undefined)
		return `The journal has no line of llamagate.service that may be read here, with --since ${since ?? defaultSince}. Look further back with --since 30d${process.getuid?.() === 0 ? "" : ", or with sudo"}; what a gate writes elsewhere is read by: llamagate logs FILE, or docker logs NAME | llamagate logs -`;
	const named = file === "-" ? "Standard input" : file;
	return lines === 0
		? `${named} is empty.`
		: `${named} has no line of a gate's log, which is JSON with a time and a msg (docs/logs.md).`;
}

/** What has lines, and why there were no more of them once they are over. */
interface Source {
	readonly name: string;
	readonly input: Readable;
	failure?(): Promise<string | undefined>;
}

/** @throws {Finding} where it cannot be read, or not to its end */
async function* linesOf({ name, input, failure }: Source) {
	try {
		yield* createInterface({ input });
	} catch (error) {
		throw cannotBeRead(name, error as NodeJS.ErrnoException);
	}
	const why = await failure?.();
	if (why !== undefined) throw new Finding(why);
}

function cannotBeRead(
	name: string,
	{ code, message }: NodeJS.ErrnoException,
): Finding {
	return new Finding(
		`${name} cannot be read (${code ?? message})${code === "EISDIR" ? ": it is a folder; name a file in it" : ""}`,
	);
}

function readJournal(sinceMs: number | undefined, follow: boolean): Source {
	return readProgram("journalctl", [
		"--unit=llamagate.service",
		"--output=cat",
		"--no-pager",
		"--quiet",
		...(sinceMs === undefined
			? []
			: [`--since=@${Math.floor(sinceMs / 1000)}`]),
		...(follow ? ["--follow", "--lines=all"] : []),
	]);
}

async function readFile(file: string, follow: boolean): Promise<Source> {
	if (file === "-") return { name: "standard input", input: process.stdin };
	try {
		await access(file, constants.R_OK);
	} catch (error) {
		throw cannotBeRead(file, error as NodeJS.ErrnoException);
	}
	// By its name, since a log that is rotated goes on in another file.
	if (follow) return readProgram("tail", ["--lines=+1", "-F", "--", file]);
	return { name: file, input: createReadStream(file) };
}

function readProgram(program: string, args: readonly string[]): Source {
	const child: ChildProcess & { readonly stdout: Readable } = spawn(
		program,
		args,
		{ stdio: ["ignore", "pipe", "inherit"] },
	);
	const ended = new Promise<string | undefined>((resolve) => {
		child.once("error", (error: NodeJS.ErrnoException) =>
			resolve(
				error.code === "ENOENT"
					? `found no ${program} here; give the file that the log is written to: llamagate logs FILE`
					: error.message,
			),
		);
		child.once("close", (code) =>
			resolve(
				code === 0 || code === null
					? undefined
					: `${program} could not read the log (exit code ${code})`,
			),
		);
	});
	process.once("exit", () => child.kill());
	// A signal would end this process alone, and leave the other waiting for the next line.
	for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const)
		process.once(signal, () => process.exit(exitCodes.ok));
	return { name: program, input: child.stdout, failure: () => ended };
}

/** @returns epoch milliseconds */
function readSince(text: string | undefined): number | undefined {
	if (text === undefined) return undefined;
	const durationMs = parseDuration(text);
	const timeMs =
		durationMs === undefined ? parseTime(text) : Date.now() - durationMs;
	if (timeMs === undefined)
		throw new UsageError(
			`--since ${text} is neither a duration such as 2h nor a time such as 2030-01-01T12:00:00Z`,
		);
	return timeMs;
}

function readFilter(
	values: { key?: string; model?: string; outcome?: string },
	sinceMs: number | undefined,
): (entry: LogEntry) => boolean {
	const { key } = values;
	const pattern = readPattern(values.model);
	const wanted = values.outcome?.split(",").map((outcome) => outcome.trim());
	const wrong = wanted?.find(
		(text) => !outcomes.some((outcome) => outcome === text),
	);
	if (wrong !== undefined)
		throw new UsageError(
			`${JSON.stringify(wrong)} is not an outcome; known: ${outcomes.join(", ")}`,
		);
	const requestsOnly = [key, pattern, wanted].some(
		(filter) => filter !== undefined,
	);
	return (entry) => {
		if (sinceMs !== undefined && !(Date.parse(String(entry.time)) >= sinceMs))
			return false;
		if (entry.msg !== "request") return !requestsOnly;
		return (
			(key === undefined || (entry.key ?? "-") === key) &&
			(wanted === undefined || wanted.includes(String(entry.outcome))) &&
			(pattern === undefined || isModel(entry.model, pattern))
		);
	};
}

function readPattern(text: string | undefined): ModelPattern | undefined {
	if (text === undefined) return undefined;
	const pattern = parseModelPattern(text);
	if (pattern === undefined)
		throw new UsageError(
			`${JSON.stringify(text)} is not a pattern of models; write one such as qwen3:*`,
		);
	return pattern;
}

function isModel(name: unknown, pattern: ModelPattern): boolean {
	const model = typeof name === "string" ? parseModelName(name) : undefined;
	return model !== undefined && pattern(model);
}

import { createInterface } from "node:readline";
import { Writable } from "node:stream";
import { type ParseArgsConfig, parseArgs } from "node:util";
import { UsageError } from "../errors.ts";
import { readArgs } from "./command.ts";

/**
 * Reads the arguments of a command that takes a key, and at most one word. No
 * message of it repeats what could be a key.
 *
 * @param word what the one word is called: `CLIENT`
 * @param inPlace where else a key may come from, after "standard input"
 * @throws {UsageError} also for a key on the command line
 */
export function readArgsWithoutKey<
	const O extends NonNullable<ParseArgsConfig["options"]>,
>(args: string[], options: O, word: string, inPlace = "") {
	if (args.some((arg) => /^--?(api-?)?(key|token)(=|$)/i.test(arg)))
		throw new UsageError(
			`a key does not go on the command line, where other users and the shell's history see it; use --key-stdin and put it on standard input${inPlace}`,
		);
	const loose = parseArgs({
		args,
		options,
		allowPositionals: true,
		strict: false,
	});
	// An option that is not known comes first: what follows it may be its value.
	const parsed = readArgs(
		args,
		options,
		loose.positionals.map(() => word),
	);
	if (parsed.positionals.length > 1)
		throw new UsageError(
			`one ${word} is enough; a key goes on standard input, with --key-stdin`,
		);
	return parsed;
}

/** Tells a person at a terminal what is waited for; `readStandardInput` comes next. */
export function promptForKey(): void {
	if (!process.stdin.isTTY) return;
	// Before the question, or what comes at once would stand on the screen.
	process.stdin.setRawMode(true);
	process.stderr.write(
		"Type or paste the key, then press Enter. It is not shown.\n",
	);
}

/** All of standard input, of a terminal one line; without the space around it. */
export async function readStandardInput(): Promise<string> {
	if (process.stdin.isTTY) return readUnseenLine();
	let text = "";
	process.stdin.setEncoding("utf8");
	for await (const chunk of process.stdin) text += String(chunk);
	return text.trim();
}

/** What is typed up to Enter. Nothing of it is on the screen; Ctrl-C or Ctrl-D makes it empty. */
function readUnseenLine(): Promise<string> {
	const nowhere = new Writable({ write: (_chunk, _encoding, done) => done() });
	const terminal = createInterface({
		input: process.stdin,
		output: nowhere,
		terminal: true,
		historySize: 0,
	});
	return new Promise((resolve) => {
		let line = "";
		terminal.once("line", (typed) => {
			line = typed;
			terminal.close();
		});
		terminal.once("close", () => resolve(line.trim()));
	});
}

import { type ParseArgsConfig, parseArgs } from "node:util";
import { exitCodes, UsageError, UserError } from "../errors.ts";
import { nearest } from "../nearest.ts";
import { formatJsonLine } from "../report/json.ts";
import { visible } from "../visible.ts";

/** One command of the program. */
export interface Command {
	/** What `--help` prints, an example included. */
	readonly help: string;
	/** What it prints in place of that for one of the command's actions, if the arguments name one. */
	helpFor?(args: readonly string[]): string | undefined;
	/** The action that these arguments name, where it has a help of its own. */
	actionOf?(args: readonly string[]): string | undefined;
	/** @returns the exit code */
	run(args: string[]): Promise<number>;
}

type Options = NonNullable<ParseArgsConfig["options"]>;

/**
 * Reads a command's arguments.
 *
 * @param positionals the names of those that must be there
 * @param optional the names of those that may follow
 * @throws {UsageError} naming the nearest known option where one is unknown
 */
export function readArgs<const O extends Options>(
	args: string[],
	options: O,
	positionals: readonly string[] = [],
	optional: readonly string[] = [],
) {
	const parsed = (() => {
		try {
			return parseArgs({ args, options, allowPositionals: true, strict: true });
		} catch (error) {
			const { code, message } = error as Error & { code?: string };
			if (code === undefined || !code.startsWith("ERR_PARSE_ARGS")) throw error;
			const wrong = /'(--?[^']*)'/.exec(message)?.[1];
			const near = nearest(
				wrong?.replace(/^-+/, "") ?? "",
				Object.keys(options),
			);
			if (code === "ERR_PARSE_ARGS_UNKNOWN_OPTION")
				throw new UsageError(
					`unknown option ${wrong}${near === undefined ? "" : `; did you mean --${near}?`}`,
				);
			throw new UsageError(message.split(". ")[0] ?? message);
		}
	})();
	const most = positionals.length + optional.length;
	if (parsed.positionals.length > most)
		throw new UsageError(
			`unexpected argument ${JSON.stringify(parsed.positionals[most])}`,
		);
	const missing = positionals[parsed.positionals.length];
	if (missing !== undefined) throw new UsageError(`${missing} is missing`);
	return parsed;
}

/** Runs a command and turns what it throws into one clear message and an exit code. */
export async function runCommand(
	name: string,
	command: Command,
	args: string[],
): Promise<number> {
	if (args.includes("--help") || args.includes("-h")) {
		const help = command.helpFor?.(args) ?? command.help;
		process.stdout.write(`${help.trim()}\n`);
		return exitCodes.ok;
	}
	try {
		return await command.run(args);
	} catch (error) {
		if (!(error instanceof UserError)) throw error;
		const { message, exitCode: code } = error;
		if (args.includes("--json"))
			process.stdout.write(formatJsonLine({ error: message, code }));
		const of = command.actionOf?.(args);
		process.stderr.write(
			`llamagate ${name}: ${visible(message)}\n${code === exitCodes.usage ? `See: llamagate ${name}${of === undefined ? "" : ` ${of}`} --help\n` : ""}`,
		);
		return code;
	}
}

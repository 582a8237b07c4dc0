import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { temporaryFolder } from "./temporaryFolder.ts";

/**
 * A script for the command line, as test/cli/ has them:
 *
 *     # What it shows, in a sentence: the test's name.
 *     $ llamagate keys revoke laptop --config config.json
 *     stdout, line by line
 *     ! stderr, line by line
 *     = 1                        (the exit code, where it is not 0)
 *     -- config.json --
 *     a file that is there from the start, with mode 0600
 *
 * Within an expected line `[..]` stands for anything in that line; a line `...`
 * for any lines.
 */
export interface CliScript {
	readonly name: string;
	readonly steps: readonly CliStep[];
	readonly files: readonly { readonly name: string; readonly text: string }[];
}

interface CliStep {
	/** What is said before it, `# …` and empty lines. */
	readonly before: readonly string[];
	readonly command: string;
	readonly expected: readonly string[];
}

const fileMark = /^-- (.+) --$/;

/** @throws if it has no name or expects something before its first command */
export function parseScript(text: string): CliScript {
	const lines = text.split("\n");
	const filesFrom = lines.findIndex((line) => fileMark.test(line));
	const script = filesFrom === -1 ? lines : lines.slice(0, filesFrom);
	const name = /^# (.+?)\.?$/.exec(script[0] ?? "")?.[1];
	if (name === undefined)
		throw new Error("a script's first line is # and what it shows");
	const steps: { before: string[]; command: string; expected: string[] }[] = [];
	let before: string[] = [];
	for (const line of script) {
		const step = steps.at(-1);
		if (line.startsWith("$ ")) {
			steps.push({ before, command: line.slice(2), expected: [] });
			before = [];
		} else if (line.startsWith("#") || line === "") before.push(line);
		else if (step === undefined)
			throw new Error(`before the first command stands: ${line}`);
		else {
			// An empty line, or one that begins with #, is the command's if more of it follows.
			step.expected.push(...before, line);
			before = [];
		}
	}
	const files: { name: string; text: string }[] = [];
	for (const line of filesFrom === -1 ? [] : lines.slice(filesFrom)) {
		const [, file] = fileMark.exec(line) ?? [];
		const last = files.at(-1);
		if (file !== undefined) files.push({ name: file, text: "" });
		else if (last !== undefined) last.text += `${line}\n`;
	}
	for (const file of files) file.text = `${file.text.trimEnd()}\n`;
	return { name, steps, files };
}

/**
 * Runs a script's commands one after the other, in a folder of their own, each
 * with the program in place of `llamagate`.
 *
 * @returns for each command its output as a script has it
 */
export async function runScript(
	t: Parameters<typeof temporaryFolder>[0],
	{ steps, files }: CliScript,
	program: readonly string[],
): Promise<string[][]> {
	const folder = await temporaryFolder(t);
	for (const { name, text } of files) {
		const file = path.join(folder, name);
		await mkdir(path.dirname(file), { recursive: true });
		await writeFile(file, text, { mode: 0o600 });
	}
	const outputs: string[][] = [];
	for (const { command } of steps) {
		const output = await runCommand(command, folder, program);
		outputs.push(output.map((line) => line.replaceAll(folder, "[..]")));
	}
	return outputs;
}

async function runCommand(
	command: string,
	folder: string,
	program: readonly string[],
): Promise<string[]> {
	const child = spawn(
		"sh",
		[
			"-c",
			`llamagate() { ${program.map((_, index) => `"$P${index}"`).join(" ")} "$@"; }\n${command}`,
		],
		{
			cwd: folder,
			env: {
				...process.env,
				...Object.fromEntries(
					program.map((word, index) => [`P${index}`, word]),
				),
				HOME: "/nonexistent",
			},
			stdio: ["ignore", "pipe", "pipe"],
		},
	);
	const texts = { stdout: "", stderr: "" };
	for (const name of ["stdout", "stderr"] as const)
		child[name].setEncoding("utf8").on("data", (text: string) => {
			texts[name] += text;
		});
	const [code] = (await once(child, "close")) as [number | null];
	const lines = (text: string) =>
		text === "" ? [] : text.replace(/\n$/, "").split("\n");
	return [
		...lines(texts.stdout),
		...lines(texts.stderr).map((line) => `! ${line}`.trimEnd()),
		...(code === 0 ? [] : [`= ${code}`]),
	];
}

/** Whether an output is what a script expects. */
export function matches(
	output: readonly string[],
	expected: readonly string[],
): boolean {
	const [first, ...rest] = expected;
	if (first === undefined) return output.length === 0;
	if (first === "...")
		return (
			matches(output, rest) ||
			(output.length > 0 && matches(output.slice(1), expected))
		);
	const [line, ...others] = output;
	const pattern = first
		.split("[..]")
		.map((text) => text.replace(/[\\^$.*+?()[\]{}|]/g, "\\$&"))
		.join(".*");
	return (
		line !== undefined &&
		new RegExp(`^${pattern}$`).test(line) &&
		matches(others, rest)
	);
}

/** The script's text with other outputs. */
export function withOutputs(
	{ steps, files }: CliScript,
	outputs: readonly (readonly string[])[],
	text: string,
): string {
	const lines = steps.flatMap(({ before, command, expected }, index) => {
		const output = outputs[index] ?? [];
		return [
			...before,
			`$ ${command}`,
			...(matches(output, expected) ? expected : output),
		];
	});
	const from = text.split("\n").findIndex((line) => fileMark.test(line));
	const rest =
		files.length === 0 ? "" : `\n${text.split("\n").slice(from).join("\n")}`;
	return `${lines.join("\n")}\n${rest}`;
}

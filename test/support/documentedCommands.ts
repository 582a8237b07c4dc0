import { readFile } from "node:fs/promises";
import path from "node:path";

const root = path.join(import.meta.dirname, "../..");

/**
 * The lines of sh that stand below a heading (##) of a page, up to the next one,
 * as a reader would paste them: what a backslash breaks is one line.
 *
 * @throws if there are none, so that a page that has changed is noticed
 */
export async function commandsBelow(
	page: string,
	heading: string,
): Promise<string[]> {
	const text = await readFile(path.join(root, page), "utf8");
	const [, section = ""] = text.split(`\n## ${heading}\n`);
	const [body = ""] = section.split("\n## ");
	const lines = [...body.matchAll(/^```sh\n([\s\S]*?)^```$/gm)].flatMap(
		([, block = ""]) => linesOf(block),
	);
	if (lines.length === 0)
		throw new Error(`${page} has no commands below "${heading}"`);
	return lines;
}

/** The indented lines of a file's comment, which are commands. */
export async function commandsInComment(file: string): Promise<string[]> {
	const text = await readFile(path.join(root, file), "utf8");
	return linesOf(
		text
			.split("\n")
			.flatMap((line) => /^# {3}(.*)$/.exec(line)?.[1] ?? [])
			.join("\n"),
	);
}

function linesOf(block: string): string[] {
	return block
		.replaceAll(/\\\n\s*/g, "")
		.split("\n")
		.filter((line) => line.trim() !== "");
}

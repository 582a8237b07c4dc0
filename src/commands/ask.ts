import { createInterface } from "node:readline/promises";

/** Asks a question at the terminal. Anything but a yes is a no, a closed terminal too. */
export async function askYesNo(
	question: string,
	output: NodeJS.WritableStream,
): Promise<boolean> {
	const terminal = createInterface({ input: process.stdin, output });
	const closed = new Promise<string>((resolve) =>
		terminal.once("close", () => resolve("")),
	);
	const answer = await Promise.race([
		terminal.question(`${question} [y/N] `),
		closed,
	]);
	terminal.close();
	return /^y(es)?$/i.test(answer.trim());
}

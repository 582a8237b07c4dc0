import { takeSnapshot } from "./snapshot.ts";
import type { Command, ListPlace, Placed } from "./step.ts";

/** The lines of a text that are entries, by how those begin. */
export function entriesIn(text: string, mark: string): string[] {
	return text.split("\n").filter((line) => line.startsWith(mark));
}

/** The entries of a file now. */
async function entriesOf(file: string, mark: string): Promise<string[]> {
	const { content } = await takeSnapshot(file);
	return entriesIn(content?.toString("utf8") ?? "", mark);
}

/**
 * Puts an entry back into each of its lists, ahead of the first of those that
 * stood behind it and is still there; at the end, where there is none.
 *
 * @param run runs commands, the second where the first fails
 * @returns whether all came through
 */
export async function putInPlace(
	{ mark, countedOnce, lists }: Placed,
	run: (command: Command, orElse: Command) => Promise<boolean>,
): Promise<boolean> {
	let worked = true;
	let counted = 0;
	for (const { file, command, entries, behind } of lists) {
		const now = await entriesOf(file, mark);
		if (command !== undefined && entries.some((line) => !now.includes(line))) {
			const next = now.findIndex((line) => behind.includes(line));
			const [program = "", ...words] = command;
			worked =
				(await run(
					next < 0
						? command
						: [program, "insert", String(counted + next + 1), ...words],
					command,
				)) && worked;
		}
		counted += count(await entriesOf(file, mark), countedOnce);
	}
	return worked;
}

function count(lines: readonly string[], countedOnce?: string): number {
	if (countedOnce === undefined) return lines.length;
	const pattern = new RegExp(countedOnce);
	return new Set(
		lines.map((line, index) => {
			const captured = pattern.exec(line)?.slice(1);
			return captured === undefined ? index : captured.join(" ");
		}),
	).size;
}

/** Whether an entry stands as it stood, in each of its lists, between those that are still there. */
export async function isInPlace({ mark, lists }: Placed): Promise<boolean> {
	const right = await Promise.all(
		lists.map(async (list) =>
			standsRight(list, await entriesOf(list.file, mark)),
		),
	);
	return right.every(Boolean);
}

function standsRight(
	{ ahead, entries, behind }: ListPlace,
	now: readonly string[],
): boolean {
	const places = entries.map((line) => now.indexOf(line));
	return (
		!places.includes(-1) &&
		!now.slice(0, Math.min(...places)).some((line) => behind.includes(line)) &&
		!now.slice(Math.max(...places) + 1).some((line) => ahead.includes(line))
	);
}

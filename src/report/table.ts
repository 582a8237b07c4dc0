import { stripVTControlCharacters } from "node:util";

/** Columns for people: each as wide as its widest cell, colours not counted. */
export function formatTable(
	head: readonly string[],
	rows: readonly (readonly string[])[],
): string {
	const width = (cell: string | undefined) =>
		stripVTControlCharacters(cell ?? "").length;
	const widths = head.map((title, column) =>
		Math.max(width(title), ...rows.map((row) => width(row[column]))),
	);
	const line = (row: readonly string[]) =>
		row
			.map(
				(cell, column) =>
					cell + " ".repeat((widths[column] ?? 0) - width(cell)),
			)
			.join("  ")
			.trimEnd();
	return `${[head, ...rows].map(line).join("\n")}\n`;
}

/** The words of a text in lines of at most so many columns; a longer word is alone. */
export function wrap(text: string, columns: number): string[] {
	const lines: string[] = [];
	let line = "";
	for (const word of text.split(" ")) {
		if (line !== "" && line.length + 1 + word.length > columns) {
			lines.push(line);
			line = word;
		} else line = line === "" ? word : `${line} ${word}`;
	}
	return [...lines, line];
}

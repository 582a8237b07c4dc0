import { stripVTControlCharacters } from "node:util";

/** Columns for people: each as wide as its widest cell, colours not counted. */
export function formatTable(
	head: readonly string[],
	rows: readonly (readonly string[])[],
): string {
	const width = (cell: string) => stripVTControlCharacters(cell).length;
	const widths = widthsOf([head, ...rows], width);
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

/** How wide each column is: as its widest cell. */
export function widthsOf(
	rows: readonly (readonly string[])[],
	width: (cell: string) => number,
): number[] {
	const widths: number[] = [];
	// One call does not take as many arguments as there may be rows.
	for (const row of rows)
		for (const [column, cell] of row.entries())
			widths[column] = Math.max(widths[column] ?? 0, width(cell));
	return widths;
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

/** A table of the report. */
export interface Section {
	/** What the figures are found by. */
	readonly name: string;
	readonly title: string;
	/** What was done and how far it can be believed. */
	readonly notes: readonly string[];
	readonly head: readonly string[];
	readonly rows: readonly (readonly string[])[];
	/** Each target's figures by name: what goals and plots are made from. */
	readonly figures: Readonly<Record<string, Readonly<Record<string, number>>>>;
	/** Every sample behind them. */
	readonly data: unknown;
}

export function renderSection({ title, notes, head, rows }: Section): string {
	const line = (cells: readonly string[]) => `| ${cells.join(" | ")} |\n`;
	const table =
		head.length === 0
			? ""
			: `\n${line(head)}${line(head.map((_, index) => (index === 0 ? "---" : "--:")))}${rows
					.map((row) => line(head.map((_, index) => row[index] ?? "")))
					.join("")}`;
	return `## ${title}\n\n${notes.map((note) => `- ${note}\n`).join("")}${table}`;
}

/** The value below which the given share of the values lies (nearest rank). */
export function quantile(values: readonly number[], share: number): number {
	if (values.length === 0) throw new Error("nothing was measured");
	const sorted = values.toSorted((a, b) => a - b);
	const rank = Math.max(0, Math.ceil(share * sorted.length) - 1);
	return sorted[rank] ?? Number.NaN;
}

export function median(values: readonly number[]): number {
	const half = values.length / 2;
	const sorted = values.toSorted((a, b) => a - b);
	const middle = sorted.slice(Math.ceil(half) - 1, Math.floor(half) + 1);
	if (middle.length === 0) throw new Error("nothing was measured");
	return middle.reduce((sum, value) => sum + value, 0) / middle.length;
}

export function whole(value: number): string {
	return Math.round(value).toLocaleString("en-US");
}

export function fixed(value: number, digits = 1): string {
	return value.toFixed(digits);
}

export function ratio(value: number, of: number | undefined): string {
	return of === undefined ? "" : `${(value / of).toFixed(2)}×`;
}

/**
 * A row of a table that has a tree's figure, a baseline's, their ratio, and what
 * that may be at the most.
 *
 * @param other the baseline's, where one was measured
 */
export function comparedRow(
	title: string,
	own: number,
	other: number | undefined,
	digits: number,
	most?: number,
): string[] {
	if (other === undefined) return [title, fixed(own, digits)];
	return [
		title,
		fixed(own, digits),
		fixed(other, digits),
		fixed(own / other, 2),
		...(most === undefined
			? []
			: [`≤ ${most}`, own / other <= most ? "met" : "**not met**"]),
	];
}

export function mebibytes(bytes: number): string {
	return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

export function range(values: readonly number[]): string {
	return `${whole(Math.min(...values))}–${whole(Math.max(...values))}`;
}

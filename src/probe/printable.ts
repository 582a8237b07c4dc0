const maxLength = 200;

/** What a server says, fit for a terminal and a report: one short line, never the key. */
export function printable(text: string, key?: string): string {
	const line = (key === undefined ? text : text.replaceAll(key, "KEY"))
		.replace(/\s+/g, " ")
		.replace(/[\p{Cc}\p{Cf}]/gu, "")
		.trim();
	return line.length > maxLength ? `${line.slice(0, maxLength - 1)}…` : line;
}

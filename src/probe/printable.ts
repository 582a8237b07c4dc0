const maxLength = 200;

/** What a server says, fit for a terminal and a report: one short line, never the key. */
export function printable(text: string, key?: string): string {
	const line = (key === undefined ? text : text.replaceAll(key, "KEY"))
		.replace(/\s+/g, " ")
		.replace(/[\p{Cc}\p{Cf}]/gu, "")
		.trim();
	return line.length > maxLength ? `${line.slice(0, maxLength - 1)}…` : line;
}

/** The system's code of an error, also of one that several attempts share. */
export function codeOf(error: unknown): string {
	if (error instanceof AggregateError && error.errors.length > 0)
		return codeOf(error.errors[0]);
	const { code, cause, name } = error as Error & { code?: string };
	if (
		cause instanceof Error &&
		(code === undefined || code === "UND_ERR_SOCKET")
	)
		return codeOf(cause);
	return code ?? name;
}

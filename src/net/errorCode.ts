/** The system's code of an error, also of one that several attempts share; its name where it has none. */
export function codeOf(error: unknown): string {
	if (error instanceof AggregateError && error.errors.length > 0)
		return codeOf(error.errors[0]);
	const { cause, name } = error as Error;
	const { code: told } = error as { code?: unknown };
	// Of a DOMException, such as AbortSignal.timeout's, it is a number.
	const code = typeof told === "string" ? told : undefined;
	if (
		cause instanceof Error &&
		(code === undefined || code === "UND_ERR_SOCKET")
	)
		return codeOf(cause);
	return code ?? name;
}

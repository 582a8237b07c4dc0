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

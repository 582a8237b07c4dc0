/** What is open beside connections of clients and to Ollama: Node's own, listeners, the log, side doors, files at a reload. */
const others = 64;

/**
 * How many file descriptors this process may open; Infinity where the system
 * does not say. Node raises the soft limit to the hard one when it starts. It is
 * asked by Node's own report, since /proc is out of reach under its permission model.
 */
export function descriptorLimit(): number {
	// Or it would look up the names of all its addresses.
	Object.assign(process.report, { excludeNetwork: true });
	const report = process.report.getReport() as {
		userLimits?: { open_files?: { soft?: unknown } };
	};
	const soft = report.userLimits?.open_files?.soft;
	return typeof soft === "number" ? soft : Number.POSITIVE_INFINITY;
}

/**
 * How many clients may be connected at once, so that their requests find a
 * descriptor for the way to Ollama, and a reload one for its files.
 *
 * @param upstreamConnections how many there may be to Ollama
 */
export function roomForClients(
	limit: number,
	upstreamConnections: number,
): number {
	const left = limit - others;
	return Math.max(left - upstreamConnections, left / 2);
}

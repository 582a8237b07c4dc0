import { readFileSync } from "node:fs";

/** What is open beside connections of clients and to Ollama: Node's own, listeners, the log, side doors, files at a reload. */
const others = 64;

/**
 * How many file descriptors this process may open; Infinity where the system
 * does not say. Node raises the soft limit to the hard one when it starts.
 */
export function descriptorLimit(): number {
	try {
		// proc_pid_limits(5): the soft limit, then the hard one
		const limits = readFileSync("/proc/self/limits", "utf8");
		const soft = Number(/^Max open files\s+(\d+)/m.exec(limits)?.[1]);
		return Number.isNaN(soft) ? Number.POSITIVE_INFINITY : soft;
	} catch {
		return Number.POSITIVE_INFINITY;
	}
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

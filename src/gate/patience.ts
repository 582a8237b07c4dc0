import type { Exchange } from "./exchange.ts";
import type { GateState } from "./state.ts";

/** Pulling and creating hash and convert large files without a word: how much longer they may be silent. */
const managementPatience = 4;

/**
 * How long Ollama may send nothing of a reply now, in milliseconds. Clients give up a
 * silent stream after 300 s themselves; with the same figure here each end would blame
 * the other.
 */
export function upstreamPatienceMs(
	{ routeMatch, bytesOut }: Exchange,
	{ firstByteTimeoutMs, idleTimeoutMs }: GateState["settings"]["upstream"],
): number {
	const longestMs = Math.max(firstByteTimeoutMs, idleTimeoutMs);
	if (routeMatch.route.scope === "manage")
		return managementPatience * longestMs;
	return bytesOut === 0 ? firstByteTimeoutMs : longestMs;
}

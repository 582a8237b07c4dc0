import { isPermittedSource, type Range } from "../net/ranges.ts";
import { type Connection, localSource } from "./connection.ts";
import type { Refusal } from "./refusal.ts";

/**
 * Step 1: the peer address of the socket must lie in `sources`. On the Unix
 * socket the mode of its file has decided already (net/listener.ts).
 */
export function checkSource(
	address: Connection["parsedAddress"],
	sources: readonly Range[],
): Refusal | undefined {
	if (address === localSource || isPermittedSource(address, sources))
		return undefined;
	return {
		status: 403,
		reason: "foreign_source",
		message:
			"this address is not on the gate's network; connect over Tailscale",
	};
}

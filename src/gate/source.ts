import { isPermittedSource, type Range } from "../net/ranges.ts";
import { type Connection, localSource } from "./connection.ts";
import type { Refusal } from "./refusal.ts";

const foreign: Refusal = {
	status: 403,
	reason: "foreign_source",
	message: "this address is not on the gate's network; connect over Tailscale",
};

/**
 * Step 1: the peer address of the socket must lie in `sources`. On the Unix
 * socket the mode of its file has decided already (net/listener.ts). A peer keeps
 * its address, so its connection remembers the answer as long as the rules do not change.
 */
export function checkSource(
	connection: Connection,
	sources: readonly Range[],
): Refusal | undefined {
	const { parsedAddress } = connection;
	if (connection.judgedBy !== sources) {
		connection.isForeign =
			parsedAddress !== localSource &&
			!isPermittedSource(parsedAddress, sources);
		connection.judgedBy = sources;
	}
	return connection.isForeign ? foreign : undefined;
}

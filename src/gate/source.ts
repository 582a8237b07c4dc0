import { type Address, isPermittedSource, type Range } from "../net/ranges.ts";
import type { Refusal } from "./refusal.ts";

/** Step 1: the peer address of the socket must lie in `sources`. */
export function checkSource(
	address: Address,
	sources: readonly Range[],
): Refusal | undefined {
	if (isPermittedSource(address, sources)) return undefined;
	return {
		status: 403,
		reason: "foreign_source",
		message:
			"this address is not on the gate's network; connect over Tailscale",
	};
}

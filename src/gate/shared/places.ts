import { hostname } from "node:os";
import { isLoopbackAddress } from "../../net/ranges.ts";
import { localSource } from "../connection.ts";

const machine = hostname();

/**
 * What an address is called among gates: loopback and the Unix socket are other
 * programs on each machine, so they go by the machine's name, too. Gates on
 * machines of one name take them for the same.
 */
export function placeAmongGates(address: string): string {
	return address === localSource || isLoopbackAddress(address)
		? `${address} of ${machine}`
		: address;
}

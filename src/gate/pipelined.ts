import type { ServerResponse } from "node:http";
import type { Exchange } from "./exchange.ts";

/**
 * Requests that a client has sent without waiting for replies are carried out side
 * by side, but their replies leave one behind the other: until its turn has come,
 * the connection is another reply's.
 */

/** Whether a reply has to wait for one before it. Of a request that has been answered past Node nobody may ask. */
export function waitsBehindAnother(res: ServerResponse): boolean {
	// Node gives it the socket in its turn, and takes it away once it has left.
	return res.socket === null && !res.writableFinished;
}

/**
 * Whether a reply waits behind one that is still looked after. Then it is not for this
 * one to say that the client does not read.
 */
export function waitsBehindLive({ res, connection }: Exchange): boolean {
	if (!waitsBehindAnother(res)) return false;
	for (const other of connection.exchanges)
		if (!waitsBehindAnother(other.res)) return true;
	return false;
}

/**
 * Does what is done to the connection for a reply, as to end it, in the turn of that
 * reply, behind what was written of it before. Never, where the connection is gone by then.
 */
export function whenInTurn(res: ServerResponse, action: () => void): void {
	if (!waitsBehindAnother(res)) action();
	// Right behind this event Node gives the socket what has been written.
	else res.once("socket", () => process.nextTick(action));
}

import type { Socket } from "node:net";
import type { Connection } from "./connection.ts";

/** What is used of Node's own (lib/net.js). */
type HandledSocket = Socket & { _handle?: { writeQueueSize?: number } | null };

/**
 * Asks the system whether a connection that is not read for now is still there. One
 * that was reset, or at whose end TCP found nobody any more, says so only to who
 * reads it or writes; a write of nothing hears of it ahead of all that had come. Of a
 * client that has closed it does not: that stands behind what the client had sent.
 *
 * @returns whether it is gone; it is closed by that in the event loop's next turn
 */
export function isGivenUp({ accepted }: Pick<Connection, "accepted">): boolean {
	// What waits to be written hears of it by itself. And under TLS, whose bytes pass
	// Node's streams by, a write that has to wait would be taken for one of TLS.
	const handle = (accepted as HandledSocket)._handle;
	if (accepted.writable && handle?.writeQueueSize === 0) accepted.write("");
	return accepted.destroyed || accepted.errored !== null;
}

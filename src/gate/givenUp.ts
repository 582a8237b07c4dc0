import type { Socket } from "node:net";
import type { Exchange } from "./exchange.ts";

/** What is used of Node's own (lib/net.js). */
type HandledSocket = Socket & { _handle?: { writeQueueSize?: number } | null };

/**
 * Asks the system whether a client is still there whose connection is not read for now,
 * since its body is held back, or since Node reads no more while large replies wait for
 * the one before them. A connection that was reset, or at whose end TCP found nobody any
 * more, says so only to who reads it or writes; a write of nothing hears of it ahead of
 * all that had come. Of a client that has closed it does not: that stands behind what the
 * client had sent.
 *
 * @returns whether it is gone; the connection is closed by that in the event loop's next turn
 */
export function isGivenUp({
	req,
	connection,
}: Pick<Exchange, "req" | "connection">): boolean {
	const { accepted } = connection;
	// What waits to be written hears of it by itself. And under TLS, whose bytes pass
	// Node's streams by, a write that has to wait would be taken for one of TLS.
	const handle = (accepted as HandledSocket)._handle;
	const isIdle = accepted.writable && handle?.writeQueueSize === 0;
	if (isIdle && req.socket.isPaused()) accepted.write("");
	return accepted.destroyed || accepted.errored !== null;
}

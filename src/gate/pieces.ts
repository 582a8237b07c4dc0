import { cutOff, watchPieces } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";
import type { GateState } from "./state.ts";

/** Small pieces of a body beyond one for each 64 bytes. */
const mostOfBody = 10_000;
const bytesForAPiece = 64;
/** What one key's bodies may have of them at once, and a second from then on. */
const burst = 20_000;
const perSecond = 5_000;

const tooManyOfBody: Refusal = {
	status: 400,
	reason: "body_in_pieces",
	message: "the body comes in too many small chunks; send larger ones",
};
const tooManyOfKey: Refusal = {
	status: 429,
	reason: "body_in_pieces",
	message: "this key's bodies come in too many small chunks; send larger ones",
	headers: ["retry-after", "1"],
};

/**
 * Counts the pieces that chunked bodies come in: a chunk of one byte costs the
 * parser as much time as one of some thousands, and holds everybody up.
 */
export class PieceBudget {
	/** What each key has used of its burst, and when that was. */
	readonly #used = new Map<string, { pieces: number; atMs: number }>();

	/** A count for one body of a key's. It returns what a piece is refused with. */
	forBody(key: string): (sizeBytes: number) => Refusal | undefined {
		let left = mostOfBody;
		return (sizeBytes) => {
			const cost = 1 - sizeBytes / bytesForAPiece;
			left -= cost;
			if (left < 0) return tooManyOfBody;
			return cost > 0 && !this.#take(key, cost) ? tooManyOfKey : undefined;
		};
	}

	/**
	 * What a body in chunks is refused with before any of it is read: even what is
	 * thrown away costs the parser some time, so a key that has used up its burst
	 * waits until a good part of it is back.
	 */
	check(key: string): Refusal | undefined {
		const used = this.#used.get(key);
		return used === undefined || this.#leftOf(used) >= burst / 4
			? undefined
			: tooManyOfKey;
	}

	/** Forgets keys that have their whole burst back. */
	sweep(): void {
		for (const [key, used] of this.#used)
			if (this.#leftOf(used) >= burst) this.#used.delete(key);
	}

	#take(key: string, cost: number): boolean {
		let used = this.#used.get(key);
		if (used === undefined) {
			used = { pieces: 0, atMs: performance.now() };
			this.#used.set(key, used);
		}
		// The clock costs more than the count, so it is asked only where the count says no.
		if (used.pieces + cost > burst) this.#leftOf(used);
		if (used.pieces + cost > burst) return false;
		used.pieces += cost;
		return true;
	}

	#leftOf(used: { pieces: number; atMs: number }): number {
		const nowMs = performance.now();
		used.pieces = Math.max(
			0,
			used.pieces - ((nowMs - used.atMs) / 1000) * perSecond,
		);
		used.atMs = nowMs;
		return burst - used.pieces;
	}
}

/**
 * Looks after what a chunked body's pieces cost, and those of any body under TLS,
 * where each record is one, from the first one on. Returns false if it is refused at once.
 */
export function countPieces(
	{ pieces, refusalThrottle }: GateState,
	exchange: Exchange,
): boolean {
	const { req, connection, head } = exchange;
	if (head.transferEncoding.length === 0 && !connection.isEncrypted)
		return true;
	// Without a key it is a stranger's who may be let in by whose device it comes from.
	const key = connection.key ?? connection.address;
	const already = pieces.check(key);
	if (already !== undefined) {
		refusalThrottle.refuse(exchange, already);
		return false;
	}
	const refusalOf = pieces.forBody(key);
	const stopWatching = watchPieces(req.socket, (sizeBytes) => {
		if (exchange.ended) return true;
		const refusal = refusalOf(sizeBytes);
		if (refusal === undefined) return true;
		// Whatever has begun of a reply cannot be told from an end.
		if (exchange.res.headersSent) cutOff(req.socket);
		else refusalThrottle.refuse(exchange, refusal);
		return false;
	});
	exchange.atEnd(stopWatching);
	return true;
}

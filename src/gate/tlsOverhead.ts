import type { Socket } from "node:net";

/** What TLS may take of what a connection sends, beyond half as much as it carries. */
const allowanceBytes = 256 * 1024;
/** Connections that are looked at in one sweep. */
const mostInSweep = 1_000;

interface Watched {
	readonly socket: Socket;
	/** Over it. */
	readonly encrypted: Socket;
	readonly device: string;
}

/**
 * Finds connections that send next to nothing in very many records. Each costs
 * OpenSSL some microseconds whatever is in it, and the cheapest (an update of
 * keys, RFC 8446, 4.6.3) never shows above it: 27 bytes for as much work as a
 * record of 16 KiB. Honest clients fill theirs.
 */
export class TlsOverhead {
	readonly #watched = new Map<Socket, Watched>();

	watch(socket: Socket, encrypted: Socket, device: string): void {
		this.#watched.set(socket, { socket, encrypted, device });
		socket.once("close", () => this.#watched.delete(socket));
	}

	/** Closes those that are found, and returns whose they were. */
	sweep(): string[] {
		const found: string[] = [];
		for (const [socket, watched] of [...this.#watched].slice(0, mostInSweep)) {
			// Those that have been looked at go to the end.
			this.#watched.delete(socket);
			this.#watched.set(socket, watched);
			const { encrypted, device } = watched;
			const carriedBytes = encrypted.bytesRead;
			if (socket.bytesRead - carriedBytes * 1.5 <= allowanceBytes) continue;
			found.push(device);
			socket.destroy();
		}
		return found;
	}
}

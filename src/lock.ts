import { createHash } from "node:crypto";
import { createServer, type Server } from "node:net";

/**
 * Takes a lock of this host, known by a name. A socket in Linux's abstract
 * namespace is a lock that the kernel gives back when its holder dies, however
 * it dies: no stale lock is left to break.
 *
 * @returns the lock, which `releaseLock` gives back, or the system's code where
 *   another process holds it or none can be had
 */
export function takeLock(
	purpose: string,
	name: string,
): Promise<Lock | string> {
	const digest = createHash("sha256").update(name).digest("hex").slice(0, 32);
	const server = createServer((socket) => socket.destroy());
	return new Promise((resolve) => {
		server.once("error", ({ code, message }: NodeJS.ErrnoException) =>
			resolve(code ?? message),
		);
		server.listen(`\0llamagate-${purpose}-${digest}`, () => resolve(server));
	});
}

/** Held until it is released or its process ends. */
export type Lock = Server;

export function releaseLock(lock: Lock): Promise<void> {
	return new Promise((resolve) => lock.close(() => resolve()));
}

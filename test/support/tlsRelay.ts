import { once } from "node:events";
import {
	type AddressInfo,
	connect as connectPlain,
	createServer,
	type Socket,
} from "node:net";
import { connect } from "node:tls";
import {
	type Authority,
	type IssuedPair,
	makeAuthority,
	ownName,
} from "./certificates.ts";

/** Set by test/tls/again: every gate speaks HTTPS, and tests meet it through a relay. */
export const tlsVariable = "LLAMAGATE_TLS";

let made: Promise<Authority & IssuedPair> | undefined;

/** A pair for every gate of this process, with the authority that it is of. */
export function commonPair(t: {
	teardown(action: () => unknown): unknown;
}): Promise<Authority & IssuedPair> {
	made ??= makeAuthority(t).then(async (authority) => ({
		...authority,
		...(await authority.issue()),
	}));
	return made;
}

/**
 * Takes connections in plain bytes and opens one to the gate for each, over TLS and
 * from the same address: what tests do to a connection happens to the gate's.
 *
 * @returns the relay's port
 */
export async function startTlsRelay(
	t: { teardown(action: () => unknown): unknown },
	port: number,
	ca: string,
): Promise<number> {
	const open = new Set<Socket>();
	const server = createServer({ allowHalfOpen: true }, (plain) => {
		const over = connectPlain({
			...{ host: "127.0.0.1", port, noDelay: true, allowHalfOpen: true },
			localAddress: plain.remoteAddress ?? "127.0.0.1",
		});
		over.on("error", () => plain.destroyed || plain.resetAndDestroy());
		const tls = connect({
			...{ socket: over, ca, servername: ownName },
			ALPNProtocols: ["http/1.1"],
		});
		open.add(plain);
		plain.setNoDelay(true);
		plain.on("error", () => {});
		tls.on("error", () => plain.destroyed || plain.resetAndDestroy());
		plain.pipe(tls);
		tls.pipe(plain);
		plain.once("close", () => {
			open.delete(plain);
			tls.destroy();
		});
		tls.once("close", () => plain.destroySoon());
	});
	server.listen(0, "0.0.0.0");
	await once(server, "listening");
	t.teardown(() => {
		server.close();
		for (const socket of open) socket.destroy();
	});
	return (server.address() as AddressInfo).port;
}

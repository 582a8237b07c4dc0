import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";

/** A TCP server in the test's hands; its connections are closed with the test. */
export async function startRawServer(
	t: { teardown(action: () => unknown): unknown },
	onConnection: (socket: Socket) => void,
): Promise<{ readonly port: number; readonly sockets: ReadonlySet<Socket> }> {
	const sockets = new Set<Socket>();
	const server = createServer((socket) => {
		sockets.add(socket);
		socket.on("error", () => {});
		socket.once("close", () => sockets.delete(socket));
		onConnection(socket);
	});
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		server.close();
		for (const socket of sockets) socket.destroy();
	});
	return { port: (server.address() as AddressInfo).port, sockets };
}

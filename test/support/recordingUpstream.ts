import { once } from "node:events";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { readRequestsLikeGo } from "./goHttp.ts";

/** An upstream that keeps every byte it is sent. */
export interface RecordingUpstream {
	readonly url: string;
	/**
	 * What each connection has brought since the last call, in Latin-1, once every
	 * request that was begun has been answered or broken off.
	 */
	take(): Promise<string[]>;
}

interface Recorded {
	text: string;
	taken: number;
	answered: number;
	open: boolean;
}

/** Answers whole requests with `{}`, and never one that is not whole. */
export async function startRecordingUpstream(t: {
	teardown(action: () => unknown): unknown;
}): Promise<RecordingUpstream> {
	let connections: Recorded[] = [];
	const sockets = new Set<Socket>();
	let changed = Promise.withResolvers<void>();
	const change = () => {
		changed.resolve();
		changed = Promise.withResolvers();
	};
	const server = createServer((socket) => {
		const recorded = { text: "", taken: 0, answered: 0, open: true };
		connections.push(recorded);
		sockets.add(socket);
		socket.setEncoding("latin1");
		socket.on("error", () => {});
		socket.on("data", (text: string) => {
			recorded.text += text;
			const { requests, end } = readRequestsLikeGo(
				recorded.text.slice(recorded.taken),
			);
			for (const { method } of requests.slice(recorded.answered))
				socket.write(
					`HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n${method === "HEAD" ? "" : "{}"}`,
				);
			recorded.answered = requests.length;
			if (end === "closed") socket.end();
			change();
		});
		socket.on("close", () => {
			recorded.open = false;
			sockets.delete(socket);
			change();
		});
	});
	server.listen(0, "127.0.0.1");
	await once(server, "listening");
	t.teardown(() => {
		for (const socket of sockets) socket.destroy();
		server.close();
	});
	const isBusy = ({ open, text, taken }: Recorded) =>
		open && readRequestsLikeGo(text.slice(taken)).end === "incomplete";
	return {
		url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
		async take() {
			while (connections.some(isBusy)) await changed.promise;
			const found = connections.map(({ text, taken }) => text.slice(taken));
			for (const recorded of connections) {
				recorded.taken = recorded.text.length;
				recorded.answered = 0;
			}
			connections = connections.filter(({ open }) => open);
			return found.filter((text) => text !== "");
		},
	};
}

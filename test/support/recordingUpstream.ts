import { readRequestsLikeGo } from "./goHttp.ts";
import { startRawServer } from "./rawServer.ts";

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
	let changed = Promise.withResolvers<void>();
	const change = () => {
		changed.resolve();
		changed = Promise.withResolvers();
	};
	const { port } = await startRawServer(t, (socket) => {
		const recorded = { text: "", taken: 0, answered: 0, open: true };
		connections.push(recorded);
		socket.setEncoding("latin1");
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
			change();
		});
	});
	const isBusy = ({ open, text, taken }: Recorded) =>
		open && readRequestsLikeGo(text.slice(taken)).end === "incomplete";
	return {
		url: `http://127.0.0.1:${port}`,
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

// Uploads a blob in chunks, as fast as it is taken, and tells how long it took.
import { connect } from "node:net";

process.on("disconnect", () => process.exit());

export interface UploadTask {
	readonly port: number;
	readonly key: string;
	readonly bytes: number;
}

const { port, key, bytes } = JSON.parse(process.argv[2] ?? "") as UploadTask;
const chunkBytes = 64 * 1024;
const frame = Buffer.from(
	`${chunkBytes.toString(16)}\r\n${"x".repeat(chunkBytes)}\r\n`,
);
const socket = connect({ port, host: "127.0.0.1", noDelay: true });
const startedAt = performance.now();
let left = Math.ceil(bytes / chunkBytes);
let reply = "";

socket.write(
	[
		`POST /api/blobs/sha256:${"0".repeat(64)} HTTP/1.1`,
		`Host: 127.0.0.1:${port}`,
		`Authorization: Bearer ${key}`,
		"Transfer-Encoding: chunked",
		"",
		"",
	].join("\r\n"),
);
function send(): void {
	while (left > 0) {
		left -= 1;
		const more = socket.write(frame);
		if (left === 0) socket.write("0\r\n\r\n");
		if (!more) return;
	}
}
socket.on("drain", send);
socket.on("data", (chunk: Buffer) => {
	reply += chunk.toString("latin1");
	const received = /"bytes":(\d+)/.exec(reply)?.[1];
	if (received === undefined) return;
	process.send?.({
		received: Number(received),
		seconds: (performance.now() - startedAt) / 1000,
	});
});
socket.on("close", () => process.send?.({ received: 0, seconds: 0 }));
socket.on("error", () => socket.destroy());
send();

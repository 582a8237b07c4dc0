// Where wrk is not installed: keep-alive connections, each with one request on
// the way at a time, as fast as the replies come.
import { connect } from "node:net";

process.on("disconnect", () => process.exit());

const { port, path, headers, connections, seconds } = JSON.parse(
	process.argv[2] ?? "",
) as {
	port: number;
	path: string;
	headers: string[];
	connections: number;
	seconds: number;
};
const lines = [`GET ${path} HTTP/1.1`, `Host: 127.0.0.1:${port}`, ...headers];
const request = `${lines.join("\r\n")}\r\n\r\n`;

let requests = 0;
let not2xx = 0;
let errors = 0;
let over = false;

/** How long the reply at the start of the text is; 0 while it is not all there. */
function replyLength(text: string): number {
	const headEnd = text.indexOf("\r\n\r\n");
	if (headEnd === -1) return 0;
	const length = /\ncontent-length: *(\d+)/i.exec(text.slice(0, headEnd))?.[1];
	const end =
		length === undefined
			? text.indexOf("\r\n0\r\n\r\n", headEnd) + 7
			: headEnd + 4 + Number(length);
	return end > headEnd + 3 && end <= text.length ? end : 0;
}

function open(): void {
	const socket = connect({ port, host: "127.0.0.1", noDelay: true });
	let text = "";
	let closing = false;
	socket.on("connect", () => socket.write(request, "latin1"));
	socket.on("data", (chunk: Buffer) => {
		text += chunk.toString("latin1");
		const length = replyLength(text);
		if (length === 0 || over) return;
		requests += 1;
		if (text[9] !== "2") not2xx += 1;
		// The gate lets a stranger have a hundred refusals on one connection.
		closing = /\nconnection: close\r/i.test(text.slice(0, length));
		text = text.slice(length);
		if (!closing) socket.write(request, "latin1");
	});
	socket.on("error", () => {
		errors += 1;
	});
	socket.on("end", () => {
		if (over) return;
		if (closing) open();
		else errors += 1;
	});
}

for (let i = 0; i < connections; i++) open();
const startedAt = performance.now();
setTimeout(() => {
	over = true;
	const took = (performance.now() - startedAt) / 1000;
	process.send?.({ requests, seconds: took, not2xx, errors });
}, seconds * 1000);

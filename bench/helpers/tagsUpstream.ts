// Answers every request head it sees with the same 400 bytes of JSON. It knows
// no more of HTTP than that, so that it is not what limits a measurement.
import { type AddressInfo, createServer } from "node:net";

process.on("disconnect", () => process.exit());

const [open, close] = ['{"models":[{"name":"', '"}]}'];
const body = open + "x".repeat(400 - open.length - close.length) + close;
const reply = `HTTP/1.1 200 OK\r\nContent-Type: application/json; charset=utf-8\r\nContent-Length: ${body.length}\r\n\r\n${body}`;

const server = createServer({ noDelay: true }, (socket) => {
	let rest = "";
	socket.on("data", (chunk: Buffer) => {
		const heads = (rest + chunk.toString("latin1")).split("\r\n\r\n");
		rest = heads.pop() ?? "";
		if (heads.length > 0) socket.write(reply.repeat(heads.length), "latin1");
	});
	socket.on("error", () => socket.destroy());
});
server.listen(0, "127.0.0.1", () =>
	process.send?.({ port: (server.address() as AddressInfo).port }),
);

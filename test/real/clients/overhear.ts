import { connect, createServer } from "node:net";

/**
 * Stands between clients and the gate, in their network: `node overhear.ts PORT
 * NAME=LISTEN ...`. What comes in at LISTEN, a port of 127.0.0.1 or a path, goes
 * to the gate at PORT; a line of JSON says when it listens, and the first time
 * that bytes, and that the comment of one who waits, come back.
 */
const [gatePort, ...places] = process.argv.slice(2);
const say = (line: object) => process.stdout.write(`${JSON.stringify(line)}\n`);

for (const place of places) {
	const [name = "", at = ""] = place.split("=");
	let said = 0;
	const server = createServer((client) => {
		const gate = connect(Number(gatePort), "127.0.0.1");
		client.pipe(gate).pipe(client);
		// One that goes takes the other along.
		client.on("close", () => gate.destroy()).on("error", () => {});
		gate.on("close", () => client.destroy()).on("error", () => {});
		let text = "";
		gate.on("data", (bytes: Buffer) => {
			if (said === 0) say({ name, saw: "bytes" });
			said ||= 1;
			text = (text + bytes.toString("latin1")).slice(-4096);
			if (said === 2 || !/^: waiting, \d+ ahead$/m.test(text)) return;
			said = 2;
			say({ name, saw: "comment" });
		});
	});
	server.listen(
		at.includes("/") ? at : { port: Number(at), host: "127.0.0.1" },
	);
	server.on("listening", () => say({ name, saw: "nothing" }));
}

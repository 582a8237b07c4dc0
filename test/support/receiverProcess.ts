import { createServer } from "node:http";

/** What alarms are posted to, in a process of its own: prints each one's JSON as a line, and first of all an empty object. */
const [, , host, port] = process.argv;
createServer((req, res) => {
	let body = "";
	req.setEncoding("utf8");
	req.on("data", (text: string) => {
		body += text;
	});
	req.on("end", () => {
		process.stdout.write(`${body}\n`);
		res.end();
	});
}).listen(Number(port), host, () => process.stdout.write("{}\n"));

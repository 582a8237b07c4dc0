import { readFileSync } from "node:fs";
import { createServer, type RequestListener } from "node:http";
import { createServer as createSecureServer } from "node:https";

/**
 * What alarms are posted to, in a process of its own: prints each one's JSON as a
 * line, and first of all an empty object. With the files of a certificate and its
 * key it speaks HTTPS.
 */
const [, , host, port, certFile, keyFile] = process.argv;
const listener: RequestListener = (req, res) => {
	let body = "";
	req.setEncoding("utf8");
	req.on("data", (text: string) => {
		body += text;
	});
	req.on("end", () => {
		process.stdout.write(`${body}\n`);
		res.end();
	});
};
const server =
	certFile === undefined || keyFile === undefined
		? createServer(listener)
		: createSecureServer(
				{ cert: readFileSync(certFile), key: readFileSync(keyFile) },
				listener,
			);
server.listen(Number(port), host, () => process.stdout.write("{}\n"));

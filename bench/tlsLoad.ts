import { request } from "node:https";

/**
 * A client that reads streams over TLS: one line on its standard output once
 * all run, and it reads on until it is ended. What it costs itself does not count.
 */
const [port, key, streams, tokens, intervalUs] = process.argv.slice(2);
const body = JSON.stringify({
	...{ model: "bench", prompt: "tell me" },
	bench: {
		...{ tokens: Number(tokens), intervalUs: Number(intervalUs) },
		...{ size: 0, report: 0 },
	},
});
let running = 0;
let pieces = 0;
for (let index = 0; index < Number(streams); index++) {
	const req = request({
		...{ host: "127.0.0.1", port: Number(port), agent: false },
		...{ path: "/api/generate", method: "POST", rejectUnauthorized: false },
		headers: {
			authorization: `Bearer ${key}`,
			"content-type": "application/json",
			"content-length": Buffer.byteLength(body),
		},
	});
	req.on("response", (res) => {
		if (res.statusCode !== 200) throw new Error(`status ${res.statusCode}`);
		res.once("data", () => {
			running += 1;
			if (running === Number(streams)) process.stdout.write("running\n");
		});
		res.on("data", (piece: Buffer) => {
			// A line each; several may have come in one piece.
			for (const byte of piece) if (byte === 0x0a) pieces += 1;
		});
	});
	req.end(body);
}
process.on("SIGUSR2", () => process.stdout.write(`${pieces}\n`));

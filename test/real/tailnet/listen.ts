import { createServer } from "node:net";

/**
 * Listens on the ports that are its arguments, on every address, and closes what
 * it accepts. It says "ready" when all of them are open.
 */
await Promise.all(
	process.argv.slice(2).flatMap((port) =>
		[
			{ host: "0.0.0.0", ipv6Only: false },
			{ host: "::", ipv6Only: true },
		].map(
			({ host, ipv6Only }) =>
				new Promise<void>((resolve, reject) => {
					createServer((socket) => socket.end())
						.once("error", reject)
						.listen({ host, ipv6Only, port: Number(port) }, resolve);
				}),
		),
	),
);
console.log("ready");

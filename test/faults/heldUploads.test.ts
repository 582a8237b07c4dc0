import { once } from "node:events";
import { connect, type Socket } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { connect as connectTls } from "node:tls";
import t from "tap";
import { makeAuthority } from "../support/certificates.ts";
import { startGate, testKeys } from "../support/gate.ts";
import { head, shows } from "../support/raw.ts";
import { requireTool } from "../support/tools.ts";

/** Sends until for a while nobody has taken any of it. */
async function fill(socket: Socket): Promise<void> {
	const piece = Buffer.alloc(1 << 20);
	const isTaken = () =>
		new Promise<boolean>((resolve) => {
			socket.write(piece, () => resolve(true));
		});
	while (await Promise.race([isTaken(), delay(500, false)]));
}

for (const how of ["HTTP", "HTTPS"])
	t.test(
		`a client that resets its connection by ${how} is gone, though Ollama takes nothing of its upload`,
		async (t) => {
			if (!requireTool(t, "openssl")) return;
			const { cert, key } = await (await makeAuthority(t)).issue();
			const tls = { certFile: "gate.crt", keyFile: "gate.key" };
			const gate = await startGate(t, {
				standIn: { misbehave: () => "never-read" },
				files: { "gate.crt": cert, "gate.key": key },
				config: {
					upstream: { idleTimeout: "30s" },
					...(how === "HTTPS" && { listen: { tls } }),
				},
			});
			const called = once(gate.standIn.events, "call");
			const socket = connect(gate.port, "127.0.0.1");
			const over =
				how === "HTTP"
					? socket
					: connectTls({ socket, rejectUnauthorized: false });
			over.on("error", () => {});
			over.write(
				head(
					`POST /api/blobs/sha256:${"0".repeat(64)} HTTP/1.1`,
					"Host: gate",
					shows(testKeys.owner),
					`Content-Length: ${200 << 20}`,
				),
			);
			await called;
			await fill(over);
			socket.resetAndDestroy();
			t.match(await gate.logged(({ msg }) => msg === "request"), {
				outcome: "client_gone",
			});
		},
	);

import { once } from "node:events";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import { eventually, spawnGate, testKeys } from "../support/gate.ts";
import { memoryMiB } from "../support/process.ts";
import {
	honestStatus,
	openRaw,
	post,
	shows,
	statusOf,
} from "../support/raw.ts";

/** An upstream that sends as fast as it is read, without an end. */
async function startFastUpstream(t: {
	teardown(action: () => unknown): unknown;
}) {
	let sentBytes = 0;
	const line = Buffer.from(`{"response":"${"x".repeat(65_520)}"}\n`);
	const server = createServer((req, res) => {
		req.resume();
		if (req.url === "/api/version") return void res.end('{"version":"0"}');
		res.writeHead(200, { "content-type": "application/x-ndjson" });
		const more = () => {
			do sentBytes += line.length;
			while (!res.destroyed && res.write(line));
		};
		res.on("drain", more);
		more();
	});
	await once(server.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		server.closeAllConnections();
		server.close();
	});
	const { port } = server.address() as AddressInfo;
	return {
		url: `http://127.0.0.1:${port}`,
		sentBytes: () => sentBytes,
		connections: () =>
			new Promise<number>((resolve) =>
				server.getConnections((_error, count) => resolve(count)),
			),
	};
}

t.test(
	"clients that do not read cost bounded memory, hold Ollama back, and are cut after idleTimeout",
	async (t) => {
		const upstream = await startFastUpstream(t);
		const gate = await spawnGate(t, {
			upstreamUrl: upstream.url,
			config: { upstream: { idleTimeout: "2s" } },
		});
		t.equal(await honestStatus(gate), 200);
		const before = await memoryMiB(gate.child.pid);
		const count = 40;
		const clients = await Promise.all(
			Array.from({ length: count }, async () => {
				const client = await openRaw(gate.port);
				t.teardown(() => client.destroy());
				client.socket.pause();
				client.write(post("/api/generate", "{}", shows(testKeys.user)));
				return client;
			}),
		);
		const stalled = () =>
			gate.log.filter(({ reason }) => reason === "client_stalled").length;
		let most = 0;
		await eventually(async () => {
			most = Math.max(most, await memoryMiB(gate.child.pid));
			return stalled() === count;
		});
		t.equal(clients.length, count);
		t.ok(
			most - before < 150,
			`it has grown by ${Math.round(most - before)} MiB`,
		);
		const perClientMiB = upstream.sentBytes() / count / 2 ** 20;
		t.ok(
			perClientMiB < 32,
			`Ollama has sent ${Math.round(perClientMiB)} MiB a client`,
		);
		t.equal(await honestStatus(gate), 200);
		await eventually(async () => {
			const { connections, streams } = await statusOf(gate);
			return connections === 0 && streams === 0;
		});
		await eventually(async () => (await upstream.connections()) <= 2);
		t.pass("nothing is left of them, here or upstream");
	},
);

import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Test } from "tap";
import {
	eventually,
	startGate,
	type TestGate,
	testEntries,
	testKeys,
} from "./gate.ts";
import { openRaw, post, type RawClient, shows } from "./raw.ts";

/** A client that sends requests without waiting for replies, and an Ollama whose replies are in the test's hands. */

const owner = shows(testKeys.owner);
const user = shows(testKeys.user);
const ndjson = "application/x-ndjson";
export const token = '{"model":"m","response":"a","done":false}\n';
const generate = post("/api/generate", '{"model":"m"}', owner);

export interface Place {
	readonly gate: Awaited<ReturnType<typeof startGate>>;
	readonly client: RawClient;
	/** The paths that Ollama was asked for. */
	readonly asked: readonly string[];
	/** Waits until Ollama is asked for this, and answers nothing yet. */
	ollamas(path: string): Promise<ServerResponse>;
}

/** A gate before an Ollama whose replies are in the test's hands, and a client's connection. */
export async function startPipelined(
	t: Test,
	config: object = {},
	keys = testEntries,
): Promise<Place> {
	const replies = new Map<string, ServerResponse>();
	const asked: string[] = [];
	const upstream = createServer((req, res) => {
		req.resume().on("end", () => {
			asked.push(req.url ?? "");
			replies.set(req.url ?? "", res);
		});
	});
	await once(upstream.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => {
		upstream.closeAllConnections();
		upstream.close();
	});
	const { port } = upstream.address() as AddressInfo;
	const gate = await startGate(t, {
		upstreamUrl: `http://127.0.0.1:${port}`,
		config: { upstream: { idleTimeout: "1s" }, ...config },
		keys,
	});
	const client = await openRaw(gate.port);
	t.teardown(() => client.destroy());
	return {
		...{ gate, client, asked },
		async ollamas(path) {
			await eventually(() => replies.has(path));
			return replies.get(path) as ServerResponse;
		},
	};
}

/** Begins a stream, and returns once the client has something of it. */
export async function beginStream({
	client,
	ollamas,
}: Place): Promise<ServerResponse> {
	client.write(generate);
	const front = await ollamas("/api/generate");
	front.writeHead(200, { "content-type": ndjson });
	front.write(token);
	await client.until((text) => text.includes(token));
	return front;
}

/** Returns once a body that stands still has been given up; whatever else stood still by then has done so for as long. */
export async function passIdleTimeout(t: Test, gate: TestGate): Promise<void> {
	const client = await openRaw(gate.port);
	client.write(post("/api/embed", "{}", user).slice(0, -1));
	const [reply] = await client.untilReplies(1);
	t.equal(reply?.status, 408);
	client.destroy();
}

import { once } from "node:events";
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import t from "tap";
import { bearer, startGate, testKeys } from "../support/gate.ts";

/** A gate in front of an upstream that says something, and dies. */
async function startBefore(
	t: { teardown(action: () => unknown): unknown },
	type: string,
	text: string,
): ReturnType<typeof startGate> {
	const die = (res: ServerResponse) => res.socket?.resetAndDestroy();
	const upstream = createServer((req, res) => {
		req.resume().on("end", () => {
			res.writeHead(200, { "content-type": type });
			res.write(text, () => setTimeout(die, 20, res));
		});
	});
	await once(upstream.listen(0, "127.0.0.1"), "listening");
	t.teardown(() => upstream.close());
	const { port } = upstream.address() as AddressInfo;
	return startGate(t, { upstreamUrl: `http://127.0.0.1:${port}` });
}

/** What comes of a reply before it ends or breaks. */
async function ask(url: string, path: string): Promise<string> {
	const response = await fetch(url + path, {
		method: "POST",
		headers: bearer(testKeys.user),
		body: '{"model":"m"}',
	});
	let text = "";
	try {
		for await (const piece of response.body ?? [])
			text += Buffer.from(piece as Uint8Array).toString();
	} catch {
		// The cut.
	}
	return text;
}

const ndjson = "application/x-ndjson";
const sse = "text/event-stream";
const chunk = '{"model":"m","done":false}\n';
const event = 'data: {"model":"m"}\n\n';
const told = 'data: {"type":"error","error":{"message":"boom"}}';

// As another gate ends a stream that breaks off.
for (const [path, type, text, end] of [
	["/api/chat", ndjson, `${chunk}{"error":"boom"}\n`, ""],
	["/api/chat", ndjson, `${chunk}{"error":"boom"}`, "\n"],
	["/v1/chat/completions", sse, `${event}event: error\n${told}\n\n`, "\n"],
	["/v1/messages", sse, `${event}event: error\n${told}`, "\n\n"],
	["/v1/responses", sse, `${event}event: error\n${told}\n\n`, "\n"],
] as const)
	t.test(
		`a stream of ${path} that has told its error before it breaks off is told no other: ${JSON.stringify(text.slice(-3))}`,
		async (t) => {
			const gate = await startBefore(t, type, text);
			t.equal(await ask(gate.url, path), text + end);
		},
	);

t.test(
	"an error that is no more than a stream's beginning is followed by one",
	async (t) => {
		const gate = await startBefore(t, ndjson, `${chunk}{"error":"bo`);
		t.match(await ask(gate.url, "/api/chat"), /"bo\n\{"error":"Ollama closed/);
	},
);

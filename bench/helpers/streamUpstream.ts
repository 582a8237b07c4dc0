// A stand-in for Ollama that streams tokens at a fixed pace, each with the time
// at which it was written, swallows uploads, and says when a client has gone.
import { createServer, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

process.on("disconnect", () => process.exit());

/** What a request's body asks for under `bench`; without tokens it never gets an answer. */
export interface Pace {
	readonly tokens: number;
	readonly intervalMs: number;
	/** Tell the parent when the request is here and when its client has gone. */
	readonly report?: boolean;
}

/** Messages to the parent; times are CLOCK_MONOTONIC in ns, the same for all processes. */
export type StreamEvent =
	| { readonly kind: "arrived" }
	| { readonly kind: "gone"; readonly atNs: number };

const server = createServer((req, res) => {
	if (req.url?.startsWith("/api/blobs/") === true) {
		let bytes = 0;
		req.on("data", (chunk: Buffer) => {
			bytes += chunk.length;
		});
		req.on("end", () => res.writeHead(201).end(JSON.stringify({ bytes })));
		return;
	}
	if (req.method !== "POST") {
		res.setHeader("content-type", "application/json");
		res.end('{"models":[]}');
		return;
	}
	let body = "";
	req.setEncoding("utf8").on("data", (text: string) => {
		body += text;
	});
	req.on("end", () => {
		answer(res, (JSON.parse(body) as { bench: Pace }).bench);
	});
});

function answer(res: ServerResponse, pace: Pace): void {
	const tell = (event: StreamEvent) => {
		if (pace.report) process.send?.(event);
	};
	tell({ kind: "arrived" });
	let left = pace.tokens;
	const next = () => {
		left -= 1;
		const at = String(process.hrtime.bigint()).padStart(20, "0");
		const line = `{"model":"bench","created_at":"2026-01-01T00:00:00Z","response":" token","t":"${at}","done":${left === 0}}\n`;
		if (left > 0) return void res.write(line);
		clearInterval(timer);
		res.end(line);
	};
	let timer: NodeJS.Timeout | undefined;
	if (left > 0) {
		res.setHeader("content-type", "application/x-ndjson");
		timer = setInterval(next, pace.intervalMs);
		next();
	}
	res.on("close", () => {
		const atNs = Number(process.hrtime.bigint());
		clearInterval(timer);
		if (!res.writableFinished) tell({ kind: "gone", atNs });
	});
}

server.keepAliveTimeout = 0;
server.requestTimeout = 0;
server.listen(0, "127.0.0.1", 4096, () =>
	process.send?.({ port: (server.address() as AddressInfo).port }),
);

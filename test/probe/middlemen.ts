import {
	createServer,
	type IncomingMessage,
	request,
	type ServerResponse,
} from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

/** What this needs of tap: a place to say what must be closed at a test's end. */
interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** What may be done differently from passing everything on. */
export interface Meddling {
	/** Answers a request itself, and says so. */
	answers?(req: IncomingMessage, res: ServerResponse): boolean;
	/** The path that is asked for upstream. */
	path?(path: string): string;
	/** Changes the head of a reply. */
	head?(headers: IncomingMessage["headers"]): void;
	/** Sends a reply's body on. Without it each chunk goes on as it comes. */
	body?(reply: IncomingMessage, res: ServerResponse): void;
	/** Puts a page of its own in place of an error's body. */
	readonly errorPage?: string;
	/** Does not tell upstream when a client leaves. */
	readonly isDeaf?: boolean;
	/** One request for a reply at a time, the next when it is whole. */
	readonly isSlow?: boolean;
	/** With `isSlow`, how long the first has to wait, as for a model that is loaded. */
	readonly coldMs?: number;
}

/** A proxy in front of `target` that passes everything on but for what it meddles with. */
export async function startMiddleman(
	t: Teardown,
	target: string,
	meddling: Meddling = {},
): Promise<string> {
	const upstream = new URL(target);
	let queue: Promise<void> | undefined;
	const server = createServer((req, res) => {
		if (meddling.answers?.(req, res) === true) return;
		const pass = () =>
			new Promise<void>((resolve) => {
				const path = req.url ?? "/";
				const forward = request({
					host: upstream.hostname,
					port: upstream.port,
					method: req.method,
					path: meddling.path?.(path) ?? path,
					headers: { ...req.headers, host: upstream.host },
				});
				res.once("close", () => {
					if (!res.writableFinished && meddling.isDeaf !== true)
						forward.destroy();
				});
				forward.once("response", (reply) => {
					meddling.head?.(reply.headers);
					const { statusCode = 500 } = reply;
					if (statusCode >= 400 && meddling.errorPage !== undefined) {
						delete reply.headers["content-length"];
						res.writeHead(statusCode, reply.headers);
						res.end(meddling.errorPage);
						reply.resume();
						resolve();
						return;
					}
					res.writeHead(statusCode, reply.headers);
					reply.once("close", resolve);
					reply.on("error", () => res.destroy());
					if (meddling.body === undefined) {
						reply.on("data", (chunk) => res.write(chunk));
						reply.once("end", () => res.end());
					} else meddling.body(reply, res);
				});
				forward.once("error", () => {
					res.destroy();
					resolve();
				});
				req.pipe(forward);
			});
		if (meddling.isSlow === true && req.url === "/api/chat")
			queue = (queue ?? delay(meddling.coldMs ?? 0)).then(pass);
		else void pass();
	});
	await new Promise<void>((resolve) =>
		server.listen(0, "127.0.0.1", () => resolve()),
	);
	t.teardown(
		() =>
			new Promise<void>((resolve) => {
				server.close(() => resolve());
				server.closeAllConnections();
			}),
	);
	return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** Collects so many chunks of a body before it sends them on together. */
export function collecting(
	chunks: number,
): (reply: IncomingMessage, res: ServerResponse) => void {
	return (reply, res) => {
		let held: Buffer[] = [];
		const send = () => {
			if (held.length > 0) res.write(Buffer.concat(held));
			held = [];
		};
		reply.on("data", (chunk: Buffer) => {
			held.push(chunk);
			if (held.length >= chunks) send();
		});
		reply.once("end", () => {
			send();
			res.end();
		});
	};
}

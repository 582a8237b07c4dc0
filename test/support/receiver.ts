import {
	createServer,
	type IncomingHttpHeaders,
	type IncomingMessage,
	type ServerResponse,
} from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { AlarmClock } from "../../src/ledger/alarms/clock.ts";
import type { IssuedPair } from "./certificates.ts";
import { eventually } from "./gate.ts";

interface Teardown {
	teardown(action: () => unknown): unknown;
}

/** What a receiver does with a post. */
export type Behaviour =
	| { readonly status: number; readonly location?: string }
	| "hang"
	| "close";

export interface Received {
	readonly path: string;
	readonly headers: IncomingHttpHeaders;
	readonly body: Record<string, unknown>;
}

/** Stands for ntfy, or for anything else that alarms are posted to, on a real socket. */
export interface Receiver {
	readonly url: string;
	readonly received: readonly Received[];
	/** What it does with the next ones, and at last with all. */
	behave(...behaviours: Behaviour[]): void;
	/** Waits for so many posts. */
	got(count: number): Promise<void>;
}

/** @param pair its certificate, where it speaks HTTPS */
export async function startReceiver(
	t: Teardown,
	pair?: IssuedPair,
): Promise<Receiver> {
	const received: Received[] = [];
	let behaviours: Behaviour[] = [{ status: 200 }];
	const listener = async (req: IncomingMessage, res: ServerResponse) => {
		const chunks: Buffer[] = [];
		for await (const chunk of req) chunks.push(chunk as Buffer);
		received.push({
			path: `${req.method} ${req.url}`,
			headers: req.headers,
			body: JSON.parse(Buffer.concat(chunks).toString()) as Received["body"],
		});
		const [behaviour = "hang"] = behaviours;
		if (behaviours.length > 1) behaviours.shift();
		if (behaviour === "hang") return;
		if (behaviour === "close") req.socket.destroy();
		else {
			const { status, location } = behaviour;
			res.writeHead(status, location === undefined ? {} : { location });
			res.end();
		}
	};
	const server =
		pair === undefined
			? createServer(listener)
			: createSecureServer({ ...pair }, listener);
	await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
	t.teardown(() => {
		server.close();
		server.closeAllConnections();
	});
	const { port } = server.address() as AddressInfo;
	return {
		url: `${pair === undefined ? "http" : "https"}://127.0.0.1:${port}`,
		received,
		behave: (...next) => {
			behaviours = next;
		},
		got: (count) => eventually(() => received.length >= count),
	};
}

/** A clock that a test moves. */
export class TestClock implements AlarmClock {
	#nowMs = 1_700_000_000_000;
	readonly #waiting = new Set<{ readonly atMs: number; action(): void }>();

	now(): number {
		return this.#nowMs;
	}

	/** How long what waits for a time has yet to, in milliseconds. */
	get waiting(): number[] {
		return [...this.#waiting].map(({ atMs }) => atMs - this.#nowMs);
	}

	/** Lets something's time come, once it waits for so long. */
	async passWhole(delayMs: number): Promise<void> {
		await eventually(() => this.waiting.includes(delayMs));
		this.pass(delayMs);
	}

	after(delayMs: number, action: () => void): () => void {
		const one = { atMs: this.#nowMs + delayMs, action };
		this.#waiting.add(one);
		return () => this.#waiting.delete(one);
	}

	/** Lets time pass, and what waited for it happen. */
	pass(ms: number): void {
		this.#nowMs += ms;
		for (const one of [...this.#waiting].sort((a, b) => a.atMs - b.atMs)) {
			if (one.atMs > this.#nowMs) continue;
			this.#waiting.delete(one);
			one.action();
		}
	}
}

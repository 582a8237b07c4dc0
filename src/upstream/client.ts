import type { Settings } from "../config/load.ts";
import { ActiveSet } from "../net/activeSet.ts";
import { formatHostPort } from "../net/ranges.ts";
import {
	headOf,
	linesOf,
	type UpstreamCall,
	type UpstreamSink,
} from "./call.ts";
import { Connection, placeOf, UpstreamRequest } from "./connection.ts";

export {
	OddRequest,
	type UpstreamCall,
	type UpstreamFault,
	type UpstreamSink,
} from "./call.ts";
export type { UpstreamRequest } from "./connection.ts";

/** Ollama never closes an idle connection; one that nobody needs is closed after so long. */
const maxIdleMs = 60_000;

type Limits = Pick<Settings["upstream"], "connectTimeoutMs" | "maxConnections">;

/** What a request must name as its `Host`: bound to loopback, Ollama answers 403 to any other. */
export function hostHeaderOf(target: Settings["upstream"]["target"]): string {
	return target.kind === "tcp"
		? formatHostPort(target.host, target.port)
		: "127.0.0.1:11434";
}

/** Connections to one Ollama, each with one request at a time. */
export class Upstream {
	/** For messages: `127.0.0.1:11434`, or the socket's path. */
	readonly name: string;
	readonly #place: ReturnType<typeof placeOf>;
	readonly #hostHeader: string;
	#limits: Limits;
	/** Begins each request's headers. */
	#firstLines: string;
	readonly #all = new ActiveSet<Connection>();
	/** The one that was used last is last. */
	readonly #idle: Connection[] = [];
	/** Called once more may be sent. */
	readonly #wantRoom = new Set<() => void>();
	#retired = false;

	/** @param ownHeaders of every request: names and values in turn; nothing of a client's is among them */
	constructor(
		settings: Settings["upstream"],
		ownHeaders: readonly string[] = [],
	) {
		const { target } = settings;
		this.#place = placeOf(target);
		this.#hostHeader = hostHeaderOf(target);
		this.#limits = settings;
		this.#firstLines = linesOf(["host", this.#hostHeader, ...ownHeaders]);
		this.name = target.kind === "tcp" ? this.#hostHeader : target.socketPath;
	}

	/** Puts other limits and headers in force for what is sent from now on. What runs goes on, and counts. */
	use(limits: Limits, ownHeaders: readonly string[] = []): void {
		this.#limits = limits;
		this.#firstLines = linesOf(["host", this.#hostHeader, ...ownHeaders]);
	}

	/** Requests that may be with Ollama at once. */
	get maxConnections(): number {
		return this.#limits.maxConnections;
	}

	/** Requests that are with Ollama. */
	get active(): number {
		return this.#all.size - this.#idle.length;
	}

	/** No more may be with Ollama. */
	get isFull(): boolean {
		return this.active >= this.maxConnections;
	}

	/**
	 * Calls once, when a connection falls free or closes, and not before whoever used it
	 * has heard how that ended: after a fault nothing more may be sent. A function that
	 * is given twice until then is called once.
	 */
	whenRoom(call: () => void): void {
		this.#wantRoom.add(call);
	}

	/** Sends a request; the sink hears nothing before this has returned. @throws OddRequest */
	send(call: UpstreamCall, sink: UpstreamSink): UpstreamRequest {
		const message = { call, head: headOf(call, this.#firstLines) };
		const request = new UpstreamRequest(call, sink);
		const idle = this.#idle.pop();
		if (idle === undefined) this.#open().begin(request, message);
		else idle.beginAgain(request, message);
		return request;
	}

	/** Closes what nobody has needed for a minute. */
	sweep(nowMs: number): void {
		while (
			this.#idle[0] !== undefined &&
			nowMs - this.#idle[0].idleSinceMs > maxIdleMs
		)
			this.#idle[0].destroy();
	}

	/** Takes no connection back any more: each ends with its request. */
	retire(): void {
		this.#retired = true;
		for (const connection of [...this.#idle]) connection.destroy();
	}

	/** Ends all connections, whatever runs on them. */
	destroy(): void {
		this.#retired = true;
		for (const connection of this.#all) connection.destroy();
	}

	#open(): Connection {
		const { connectTimeoutMs } = this.#limits;
		const connection = new Connection(this.#place, connectTimeoutMs, {
			free: () => {
				if (this.#retired) connection.destroy();
				else {
					this.#idle.push(connection);
					this.#tellRoom();
				}
			},
			closed: () => {
				this.#all.delete(connection);
				const at = this.#idle.indexOf(connection);
				if (at !== -1) this.#idle.splice(at, 1);
				this.#tellRoom();
			},
			unsent: (request, message) => this.#open().begin(request, message),
		});
		this.#all.add(connection);
		return connection;
	}

	#tellRoom(): void {
		if (this.#wantRoom.size === 0) return;
		const calls = [...this.#wantRoom];
		this.#wantRoom.clear();
		queueMicrotask(() => {
			for (const call of calls) call();
		});
	}
}

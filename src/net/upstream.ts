import { Pool } from "undici";
import type { Settings } from "../config/load.ts";
import { formatHostPort } from "./ranges.ts";

/** Connections to Ollama, and what a request over them must say. */
export interface UpstreamPool {
	readonly pool: Pool;
	readonly origin: string;
	/** Bound to loopback, Ollama answers 403 to any other Host. */
	readonly hostHeader: string;
	/** For messages: `127.0.0.1:11434`, or the socket's path. */
	readonly name: string;
	readonly maxConnections: number;
	/** Requests that are with Ollama. */
	active: number;
}

/** Opens a pool; connections are made when they are needed. */
export function openUpstream({
	target,
	connectTimeoutMs,
	maxConnections,
}: Settings["upstream"]): UpstreamPool {
	const hostPort =
		target.kind === "tcp"
			? formatHostPort(target.host, target.port)
			: "127.0.0.1:11434";
	const origin = `http://${hostPort}`;
	const pool = new Pool(origin, {
		connections: maxConnections,
		pipelining: 1,
		connectTimeout: connectTimeoutMs,
		// The relay keeps its own time: silence is normal while a model loads.
		headersTimeout: 0,
		bodyTimeout: 0,
		// Ollama never closes an idle connection.
		keepAliveTimeout: 60_000,
		...(target.kind === "unix" ? { socketPath: target.socketPath } : undefined),
	});
	return {
		pool,
		origin,
		hostHeader: hostPort,
		name: target.kind === "tcp" ? hostPort : target.socketPath,
		maxConnections,
		active: 0,
	};
}

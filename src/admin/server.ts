import type { RequestListener, Server } from "node:http";
import type { Log } from "../log.ts";
import { createServer } from "../net/http.ts";
import { removeStaleSocket } from "../net/staleSocket.ts";

/** What a handler of an admin server answers with. */
export interface AdminReply {
	readonly status: number;
	readonly type: "application/json" | "text/plain; version=0.0.4";
	readonly body: string;
}

/** `GET /status` and the like, to what answers it; it is told the query. */
export type AdminRoutes = Readonly<
	Record<string, (query: URLSearchParams) => AdminReply | Promise<AdminReply>>
>;

/** Connections at once; more are closed. Every local user may open them, and each takes a descriptor. */
const maxConnections = 32;
/** How long one may take to ask, or idle. */
const patienceMs = 5_000;
/** A browser that a foreign name was led here by says that name (DNS rebinding). */
const loopbackHost = /^(localhost|127\.0\.0\.1|\[::1\])(:[0-9]{1,5})?$/i;

function nothing(status: number): AdminReply {
	return { status, type: "application/json", body: "{}" };
}

/** @param hosts what a request's Host must look like; `undefined` where nobody but root comes in */
function answer(
	routes: AdminRoutes,
	hosts: RegExp | undefined,
): RequestListener {
	return (req, res) => {
		req.resume();
		const [path = "", query = ""] = (req.url ?? "").split("?", 2);
		const line = `${req.method} ${path}`;
		const handler = Object.hasOwn(routes, line) ? routes[line] : undefined;
		const reply = Promise.resolve(
			// Behind a bridge of TCP a page could have the user's browser ask; programs send no Origin.
			req.headers.origin !== undefined ||
				hosts?.test(req.headers.host ?? "") === false
				? nothing(403)
				: (handler?.(new URLSearchParams(query)) ?? nothing(404)),
		);
		reply.then(
			({ status, type, body }) => {
				res.writeHead(status, { "content-type": type });
				res.end(body);
			},
			() => res.destroy(),
		);
	};
}

/**
 * Opens an admin server for this host. One that will not open is reported and
 * left: the gate serves without it.
 *
 * @param where a socket's path, which only the daemon's user and root may open, or a loopback address
 */
export async function openAdminServer(
	where:
		| { readonly path: string }
		| { readonly host: string; readonly port: number },
	routes: AdminRoutes,
	log: Log,
): Promise<Server | undefined> {
	const server = createServer(
		{
			headersTimeout: patienceMs,
			requestTimeout: patienceMs,
			keepAliveTimeout: patienceMs,
			connectionsCheckingInterval: 1_000,
		},
		answer(routes, "path" in where ? undefined : loopbackHost),
	);
	server.maxConnections = maxConnections;
	if ("path" in where) await removeStaleSocket(where.path);
	const failure = await new Promise<NodeJS.ErrnoException | undefined>(
		(resolve) => {
			server.once("error", resolve);
			// Binding happens inside listen(), so the socket never exists with a wider mode.
			const umask = process.umask(0o177);
			server.listen(where, () => resolve(undefined));
			process.umask(umask);
		},
	);
	if (failure === undefined) return server;
	log.warn(
		{ ...where, code: failure.code },
		"path" in where
			? "the admin socket could not be opened; the gate serves without it: llamagate status, top, reload and unlock do not work, and keys cannot tell it of changes, nor systemctl reload (a SIGHUP does)"
			: "the metrics address could not be opened; the gate serves without it: counters are on the admin socket alone",
	);
	return undefined;
}

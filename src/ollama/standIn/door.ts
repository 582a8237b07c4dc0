import type { IncomingHttpHeaders } from "node:http";
import { BlockList, isIP } from "node:net";
import { hostname, networkInterfaces } from "node:os";
import { matchRoute } from "../routes.ts";

/** What is answered before any route is looked at. */
export interface Turned {
	readonly status: number;
	readonly headers?: Readonly<Record<string, string>>;
	readonly body?: string;
}

/** Who may come in: the reply to a request that may not, or that asks for no more than this. */
export interface Admission {
	/** Headers of whatever is answered. */
	readonly headers: Readonly<Record<string, string>>;
	readonly turned?: Turned;
}

/**
 * Origin first, then Host (server/routes.go:GenerateRoutes, allowedHostsMiddleware).
 *
 * @param isLocal whether the server listens on loopback; elsewhere every Host will do
 */
export function admit(
	method: string,
	{ host = "", origin }: IncomingHttpHeaders,
	isLocal: boolean,
): Admission {
	const isForeign =
		origin !== undefined &&
		origin !== "" &&
		origin !== `http://${host}` &&
		origin !== `https://${host}`;
	if (isForeign && !isAllowedOrigin(origin))
		return { headers: {}, turned: { status: 403 } };
	const headers: Record<string, string> = isForeign
		? { "access-control-allow-origin": origin, vary: "Origin" }
		: {};
	if (isForeign && method === "OPTIONS")
		return {
			headers: {
				"access-control-allow-origin": origin,
				"access-control-allow-headers": allowedHeaders,
				"access-control-allow-methods":
					"GET,POST,PUT,PATCH,DELETE,HEAD,OPTIONS",
				"access-control-max-age": "43200",
				vary: "Access-Control-Request-Headers",
			},
			turned: { status: 204 },
		};
	if (!isLocal) return { headers };
	const name = hostIn(host);
	if (isIP(name) !== 0)
		return isLocalAddress(name)
			? { headers }
			: { headers, turned: { status: 403 } };
	if (!isLocalName(name)) return { headers, turned: { status: 403 } };
	return method === "OPTIONS"
		? { headers, turned: { status: 204 } }
		: { headers };
}

const allowedHeaders =
	"Authorization,Content-Type,User-Agent,Accept,X-Requested-With,Openai-Beta";

/** net.SplitHostPort: an IPv6 address keeps its brackets where no port follows, and is none then. */
function hostIn(host: string): string {
	const [, bracketed, plain] =
		/^(?:\[(.*)\]:[^:]*|([^:]*):[^:]*)$/.exec(host) ?? [];
	return (bracketed ?? plain ?? host).toLowerCase();
}

const local = new BlockList();
local.addSubnet("127.0.0.0", 8);
local.addSubnet("10.0.0.0", 8);
local.addSubnet("172.16.0.0", 12);
local.addSubnet("192.168.0.0", 16);
local.addAddress("0.0.0.0");
local.addAddress("::1", "ipv6");
local.addAddress("::", "ipv6");
local.addSubnet("fc00::", 7, "ipv6");

/** Loopback, a private range, or an address of this host. */
function isLocalAddress(address: string): boolean {
	return (
		local.check(address, isIP(address) === 6 ? "ipv6" : "ipv4") ||
		Object.values(networkInterfaces()).some((addresses) =>
			addresses?.some((own) => own.address === address),
		)
	);
}

/** server/routes.go:allowedHost */
function isLocalName(name: string): boolean {
	return (
		name === "" ||
		name === "localhost" ||
		name === hostname().toLowerCase() ||
		/\.(localhost|local|internal)$/.test(name)
	);
}

/** envconfig/config.go:AllowedOrigins */
function isAllowedOrigin(origin: string): boolean {
	return (
		/^https?:\/\/(localhost|127\.0\.0\.1|0\.0\.0\.0)(:.*)?$/.test(origin) ||
		/^(app|file|tauri|vscode-webview|vscode-file):\/\//.test(origin)
	);
}

/**
 * The path that is routed: gin matches it decoded. Or what is answered where
 * it is not the plain one.
 */
export function plainPath(method: string, target: string): string | Turned {
	if (!/^(?:\/|https?:\/\/)/.test(target)) return { status: 400 };
	const sent = target.replace(/^https?:\/\/[^/]*/, "").replace(/\?.*$/s, "");
	const clean = cleanPath(sent);
	if (clean !== sent) return redirect(method, clean, 307);
	if (sent.length > 1 && sent.endsWith("/")) {
		const shorter = sent.slice(0, -1);
		if (matchRoute(method, shorter).kind === "route")
			return redirect(method, shorter, method === "GET" ? 301 : 307);
	}
	try {
		return decodeURIComponent(sent);
	} catch {
		return { status: 400, body: "400 Bad Request" };
	}
}

function redirect(method: string, location: string, status: number): Turned {
	const word = status === 301 ? "Moved Permanently" : "Temporary Redirect";
	return method === "GET"
		? {
				status,
				headers: { "content-type": "text/html; charset=utf-8", location },
				body: `<a href="${location}">${word}</a>.\n\n`,
			}
		: { status, headers: { location } };
}

/** Without empty and dot segments; a slash at the end stays. */
function cleanPath(path: string): string {
	const parts: string[] = [];
	for (const part of path.split("/")) {
		if (part === "..") parts.pop();
		else if (part !== "" && part !== ".") parts.push(part);
	}
	return `/${parts.join("/")}${parts.length > 0 && path.endsWith("/") ? "/" : ""}`;
}

import { createHash } from "node:crypto";
import type { IncomingMessage, Server, ServerResponse } from "node:http";
import { gzipSync } from "node:zlib";
import { createServer } from "../net/http.ts";
import { sharedStyle } from "../report/stylesheet.ts";
import { version } from "../version.ts";
import { type AccessRules, judgeAccess } from "./access.ts";
import { curveScript, curveStyle, pageScript, pageStyle } from "./assets.ts";
import { renderPage } from "./page.ts";
import type { Watch } from "./snapshot.ts";
import { type ViewerLimits, Viewers, viewerLimits } from "./viewers.ts";

/** Connections at once; a browser opens some besides its stream of events. */
const maxConnections = 128;
/** How long one may take to ask, or idle. */
const patienceMs = 5_000;
/** How long a reply may stay unread; events come more often than that. */
const unreadMs = 30_000;
const maxHeadBytes = 16 * 1024;
/** Browsers ask for nothing else. */
const methods = new Set(["GET", "HEAD"]);

/** Of every reply. Only this page's own files may run, load or be asked. */
const safeHeaders = {
	"content-security-policy":
		"default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types llamagate",
	"cross-origin-opener-policy": "same-origin",
	"cross-origin-resource-policy": "same-origin",
	"referrer-policy": "no-referrer",
	"x-content-type-options": "nosniff",
};

interface File {
	readonly type: string;
	readonly plain: Buffer;
	readonly packed: Buffer;
}

function fileOf(type: string, text: string): File {
	const plain = Buffer.from(text);
	return {
		type: `${type}; charset=utf-8`,
		plain,
		packed: gzipSync(plain, { level: 9 }),
	};
}

/** What the page loads, by path. */
const files: Readonly<Record<string, File>> = {
	"/page.css": fileOf(
		"text/css",
		[sharedStyle.text, pageStyle, curveStyle].join("\n"),
	),
	"/page.js": fileOf("text/javascript", pageScript),
	"/curves.js": fileOf("text/javascript", curveScript),
};
const assetVersion = createHash("sha256")
	.update(
		Object.values(files)
			.map(({ plain }) => plain.toString())
			.join(""),
	)
	.digest("hex")
	.slice(0, 12);

/** The page's server, which has no listener yet. */
export interface Dashboard {
	readonly server: Server;
	/** Pages that are open. */
	viewers(): number;
	close(): void;
}

/**
 * Serves the live page: to this machine's own browsers, and to those of the
 * tailnet's logins that `rules` allows. It changes nothing, whatever is asked.
 *
 * @param host the machine's name, for people
 * @param rules asked for at each request, since a port that the system chose is known later
 */
export function createDashboard(
	host: string,
	watch: Watch,
	rules: () => AccessRules,
	limits: ViewerLimits = viewerLimits,
): Dashboard {
	const viewers = new Viewers(watch, limits);
	const server = createServer(
		{
			headersTimeout: patienceMs,
			requestTimeout: patienceMs,
			keepAliveTimeout: patienceMs,
			connectionsCheckingInterval: 1_000,
			maxHeaderSize: maxHeadBytes,
		},
		(req, res) => {
			req.resume();
			answer({ host, viewers, rules: rules() }, req, res).catch(() =>
				res.destroy(),
			);
		},
	);
	server.maxConnections = maxConnections;
	server.timeout = unreadMs;
	return {
		server,
		viewers: () => viewers.count,
		close() {
			viewers.close();
			server.close();
			server.closeAllConnections();
		},
	};
}

interface Serving {
	readonly host: string;
	readonly viewers: Viewers;
	readonly rules: AccessRules;
}

async function answer(
	{ host, viewers, rules }: Serving,
	req: IncomingMessage,
	res: ServerResponse,
): Promise<void> {
	const access = judgeAccess(req.headersDistinct, rules);
	if (access.kind === "denied") return refuse(res, 403, access.why);
	if (!methods.has(req.method ?? ""))
		return refuse(res, 405, "this page is only read", { allow: "GET, HEAD" });
	const [path = ""] = (req.url ?? "").split("?", 1);
	const file = Object.hasOwn(files, path) ? files[path] : undefined;
	if (file !== undefined)
		// Its address says which it is.
		return send(req, res, file, "private, max-age=31536000, immutable");
	if (path === "/") {
		const { snapshot, sections } = await viewers.sections();
		const page = renderPage({
			host,
			version,
			at: new Date(snapshot.atMs),
			login: access.login,
			sections,
			assetVersion,
		});
		return send(req, res, fileOf("text/html", page), "no-store");
	}
	if (path !== "/events") return refuse(res, 404, "no such page");
	const headers = { ...safeHeaders, "cache-control": "no-store" };
	if (req.method === "HEAD") res.writeHead(200, headers).end();
	else if (!viewers.add(res, headers))
		refuse(res, 503, "too many have this page open; close one", {
			"retry-after": "5",
		});
}

function send(
	req: IncomingMessage,
	res: ServerResponse,
	{ type, plain, packed }: File,
	cacheControl: string,
): void {
	const isPacked = /\bgzip\b/.test(String(req.headers["accept-encoding"]));
	const body = isPacked ? packed : plain;
	res.writeHead(200, {
		...safeHeaders,
		"content-type": type,
		"content-length": body.length,
		"cache-control": cacheControl,
		vary: "accept-encoding",
		...(isPacked && { "content-encoding": "gzip" }),
	});
	res.end(req.method === "HEAD" ? undefined : body);
}

function refuse(
	res: ServerResponse,
	status: number,
	why: string,
	headers: Record<string, string> = {},
): void {
	const body = `${why}\n`;
	res.writeHead(status, {
		...safeHeaders,
		...headers,
		"content-type": "text/plain; charset=utf-8",
		"content-length": Buffer.byteLength(body),
		"cache-control": "no-store",
	});
	res.end(body);
}

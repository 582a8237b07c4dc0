import { EventEmitter, once } from "node:events";
import {
	createServer,
	type IncomingMessage,
	type ServerResponse,
} from "node:http";
import { isIPv4, isIPv6 } from "node:net";
import path from "node:path";
import { temporaryFolder } from "./temporaryFolder.ts";

/**
 * A stand-in for tailscaled's LocalAPI on a Unix socket, as far as `whois`,
 * `status` and `cert` go. Shapes, texts and the order of checks are those of Tailscale
 * 1.103 (ipn/localapi/localapi.go: ServeHTTP, serveWhoIs, serveStatus).
 */
export interface LocalApi {
	readonly socket: string;
	/** Every call that arrived, oldest first. */
	readonly calls: LocalApiCall[];
	/**
	 * Who is behind an address; behind `127.0.0.1:40000` for a connection that
	 * tailscaled forwards. Changes take effect at once.
	 */
	readonly nodes: Map<string, WhoIsResponse>;
	/** What `status` says. */
	status: Status;
	/** By name, what `cert` gives: a key and its certificates in PEM; or why it gives none. */
	readonly certs: Map<string, string | { status: number; text: string }>;
	/** Asked for each call; what it returns goes wrong. */
	misbehave: (call: LocalApiCall) => LocalApiMisbehaviour | undefined;
	/** Resolves once so many calls have arrived. */
	called(count: number): Promise<void>;
	/** Answers what "hold" has held. */
	release(): void;
	/** Connections that are open now. */
	openConnections(): number;
	/** Closes the door and every connection. */
	close(): Promise<void>;
}

export interface LocalApiCall {
	readonly method: string;
	/** `/localapi/v0/whois` */
	readonly path: string;
	/** The `addr` parameter, decoded. */
	readonly addr: string | null;
	/** The request line's target, undecoded. */
	readonly target: string;
	readonly rawHeaders: readonly string[];
}

export type LocalApiMisbehaviour =
	/** Neither this user nor another may read. */
	| "denied"
	| "no-backend"
	/** Bytes that are no HTTP. */
	| "garbage"
	| "not-json"
	/** JSON, but not of this API. */
	| "wrong-shape"
	/** Some other program's "404 page not found". */
	| "wrong-server"
	| "redirect"
	| "upgrade"
	/** Says nothing, ever. */
	| "hang"
	/** Sends a head and the beginning of a body, and then nothing, ever. */
	| "stall"
	/** Answers when the test calls `release`. */
	| "hold"
	/** A reply without end. */
	| "endless"
	/** A reply that is cut in its middle. */
	| "truncated"
	| "reset";

/** client/tailscale/apitype/apitype.go:WhoIsResponse as Go's encoding/json writes it. */
export interface WhoIsResponse {
	readonly Node: Readonly<Record<string, unknown>> & {
		readonly StableID: string;
		readonly Name: string;
	};
	readonly UserProfile: {
		readonly ID: number;
		readonly LoginName: string;
		readonly DisplayName: string;
	};
	/** A map of capabilities to lists of raw JSON; nil maps and nil lists are null. */
	readonly CapMap: Readonly<Record<string, readonly unknown[] | null>> | null;
}

/** ipn/ipnstate/ipnstate.go:Status, as far as it is read. */
export interface Status {
	readonly [name: string]: unknown;
}

export interface NodeOptions {
	/** The node's name in its tailnet. */
	readonly name?: string;
	/** Another tailnet for a node that is shared in. */
	readonly tailnet?: string;
	readonly addresses?: readonly string[];
	readonly user?: string;
	readonly tags?: readonly string[];
	readonly capMap?: WhoIsResponse["CapMap"];
	/** What else the control server says of the node, in place of what is there. */
	readonly node?: Readonly<Record<string, unknown>>;
}

const ownTailnet = "tail1234.ts.net";
const certPath = "/localapi/v0/cert/";

/** What `whois` says of a node: a user's, unless it has tags. */
export function whoIsNode({
	name = "laptop",
	tailnet = ownTailnet,
	addresses = ["100.101.102.105", "fd7a:115c:a1e0::6633:6669"],
	user = "me@example.com",
	tags = [],
	capMap = null,
	node = {},
}: NodeOptions = {}): WhoIsResponse {
	const prefixes = addresses.map(
		(address) => `${address}/${isIPv4(address) ? 32 : 128}`,
	);
	const computedName = tailnet === ownTailnet ? name : `${name}.${tailnet}`;
	const isTagged = tags.length > 0;
	return {
		Node: {
			ID: 4077351637594242,
			StableID: `n${name}CNTRL`,
			Name: `${name}.${tailnet}.`,
			User: 1867405394827163,
			Key: `nodekey:${"5c8f86d5".repeat(8)}`,
			KeyExpiry: "2027-03-01T09:30:00Z",
			Machine: `mkey:${"af23ff31".repeat(8)}`,
			DiscoKey: `discokey:${"85ca3b9a".repeat(8)}`,
			Addresses: prefixes,
			AllowedIPs: prefixes,
			Endpoints: ["203.0.113.7:41641", "192.168.1.20:41641"],
			HomeDERP: 4,
			Hostinfo: { OS: "linux", Hostname: name, Services: [] },
			Created: "2026-01-10T08:00:00Z",
			Cap: 113,
			...(isTagged ? { Tags: tags } : undefined),
			Online: true,
			ComputedName: computedName,
			ComputedNameWithHost: computedName,
			...node,
		},
		UserProfile: isTagged
			? {
					ID: 2867405394827163,
					LoginName: "tagged-devices",
					DisplayName: "Tagged Devices",
				}
			: { ID: 1867405394827163, LoginName: user, DisplayName: "Me" },
		CapMap: capMap,
	};
}

/** What `status?peers=false` says of a host that is up. */
export function runningStatus(): Status {
	return {
		Version: "1.103.0-dev20260822-tde9ec7ee2",
		TUN: true,
		BackendState: "Running",
		HaveNodeKey: true,
		AuthURL: "",
		TailscaleIPs: ["100.101.102.104", "fd7a:115c:a1e0::6633:6668"],
		Self: {
			ID: "nserverCNTRL",
			NodeID: 5077351637594242,
			PublicKey: `nodekey:${"6c8f86d5".repeat(8)}`,
			HostName: "server",
			DNSName: `server.${ownTailnet}.`,
			OS: "linux",
			UserID: 1867405394827163,
			TailscaleIPs: ["100.101.102.104", "fd7a:115c:a1e0::6633:6668"],
			Addrs: null,
			CurAddr: "",
			Relay: "fra",
			Online: true,
			Capabilities: ["funnel", "https"],
			CapMap: { funnel: null, https: null },
			InNetworkMap: true,
			KeyExpiry: "2027-03-01T09:30:00Z",
		},
		Health: [],
		MagicDNSSuffix: ownTailnet,
		CurrentTailnet: {
			Name: "example.com",
			MagicDNSSuffix: ownTailnet,
			MagicDNSEnabled: true,
		},
		CertDomains: [`server.${ownTailnet}`],
		ExtraRecords: null,
		Peer: null,
		User: {
			"1867405394827163": {
				ID: 1867405394827163,
				LoginName: "me@example.com",
				DisplayName: "Me",
			},
		},
		ClientVersion: null,
	};
}

/** What `status?peers=false` says before anybody has logged in. */
export function loggedOutStatus(): Status {
	return {
		Version: "1.103.0-dev20260822-tde9ec7ee2",
		TUN: true,
		BackendState: "NeedsLogin",
		AuthURL: "",
		TailscaleIPs: null,
		Self: {
			ID: "",
			NodeID: 0,
			PublicKey: `nodekey:${"0".repeat(64)}`,
			HostName: "server",
			DNSName: "",
			OS: "linux",
			UserID: 0,
			TailscaleIPs: null,
			Addrs: null,
			Online: false,
		},
		Health: ["You are logged out."],
		MagicDNSSuffix: "",
		CurrentTailnet: null,
		CertDomains: null,
		ExtraRecords: null,
		Peer: null,
		User: null,
		ClientVersion: null,
	};
}

/** Starts a stand-in that knows nobody; closed at the test's end. */
export async function startLocalApi(
	t: { teardown(action: () => unknown): unknown },
	socketPath?: string,
): Promise<LocalApi> {
	const socket =
		socketPath ?? path.join(await temporaryFolder(t), "tailscaled.sock");
	const arrivals = new EventEmitter();
	const held: (() => void)[] = [];
	let connections = 0;

	const server = createServer((req, res) => {
		const url = new URL(req.url ?? "", "http://local-tailscaled.sock");
		const call: LocalApiCall = {
			method: req.method ?? "",
			path: url.pathname,
			addr: url.searchParams.get("addr"),
			target: req.url ?? "",
			rawHeaders: req.rawHeaders,
		};
		const misbehaviour = api.misbehave(call);
		const finish = () => {
			if (misbehaviour === undefined || misbehaviour === "hold")
				answer(req, res, url);
			else misbehaveAs(misbehaviour, req, res);
		};
		if (misbehaviour === "hold") held.push(finish);
		else finish();
		api.calls.push(call);
		arrivals.emit("call");
	});
	server.on("connection", (connection) => {
		connections += 1;
		connection.once("close", () => {
			connections -= 1;
		});
	});

	function answer(
		req: IncomingMessage,
		res: ServerResponse,
		{ pathname, searchParams }: URL,
	): void {
		const { host, origin, referer } = req.headers;
		if (
			referer !== undefined ||
			origin !== undefined ||
			host !== "local-tailscaled.sock"
		)
			return void error(res, 403, "invalid localapi request");
		res.setHeader("Tailscale-Version", "1.103.0-dev20260822-tde9ec7ee2");
		res.setHeader("Tailscale-Cap", "140");
		res.setHeader("X-Frame-Options", "DENY");
		res.setHeader("X-Content-Type-Options", "nosniff");
		if (pathname === "/localapi/v0/status") return void json(res, api.status);
		if (pathname.startsWith(certPath)) return void answerCert(res, pathname);
		if (pathname !== "/localapi/v0/whois")
			return void error(res, 404, "404 page not found");

		const addr = searchParams.get("addr") ?? "";
		if (addr === "") return void error(res, 400, "missing 'addr' parameter");
		const remote = parseAddrPort(addr);
		if (remote === undefined)
			return void error(res, 400, "invalid 'addr' parameter");
		const whoIs =
			api.nodes.get(remote.address) ??
			(remote.port === 0 ? undefined : api.nodes.get(addr));
		if (whoIs === undefined)
			return void error(res, 404, "no match for IP:port");
		json(res, whoIs);
	}

	/** ipn/localapi/cert.go:serveCert, with `type=pair`. */
	function answerCert(res: ServerResponse, pathname: string): void {
		const given = api.certs.get(pathname.slice(certPath.length));
		if (given === undefined)
			error(
				res,
				500,
				"your Tailscale account does not support getting TLS certs",
			);
		else if (typeof given === "object") error(res, given.status, given.text);
		else {
			res.writeHead(200, { "Content-Type": "text/plain" });
			res.end(given);
		}
	}

	const api: LocalApi = {
		socket,
		certs: new Map(),
		calls: [],
		nodes: new Map(),
		status: runningStatus(),
		misbehave: () => undefined,
		async called(count) {
			while (api.calls.length < count) await once(arrivals, "call");
		},
		release() {
			for (const finish of held.splice(0)) finish();
		},
		openConnections: () => connections,
		async close() {
			if (!server.listening) return;
			server.close();
			server.closeAllConnections();
			await once(server, "close");
		},
	};
	server.listen(socket);
	await once(server, "listening");
	t.teardown(() => api.close());
	return api;
}

/** netip.ParseAddr, and failing that netip.ParseAddrPort. */
function parseAddrPort(
	text: string,
): { address: string; port: number } | undefined {
	if (isIPv4(text) || isIPv6(text)) return { address: text, port: 0 };
	const [, v6, v4, digits] =
		/^(?:\[(.+)\]|([^:[\]]+)):(\d{1,5})$/.exec(text) ?? [];
	const address = v6 ?? v4 ?? "";
	const port = Number(digits);
	const isAddress = v6 === undefined ? isIPv4(address) : isIPv6(address);
	return isAddress && port < 65_536 ? { address, port } : undefined;
}

/** Go's http.Error. */
function error(res: ServerResponse, status: number, message: string): void {
	res.writeHead(status, {
		"Content-Type": "text/plain; charset=utf-8",
		"X-Content-Type-Options": "nosniff",
	});
	res.end(`${message}\n`);
}

/** Go's json.MarshalIndent(…, "", "\t"). */
function json(res: ServerResponse, value: unknown): void {
	res.writeHead(200, { "Content-Type": "application/json" });
	res.end(JSON.stringify(value, undefined, "\t"));
}

function misbehaveAs(
	misbehaviour: Exclude<LocalApiMisbehaviour, "hold">,
	req: IncomingMessage,
	res: ServerResponse,
): void {
	switch (misbehaviour) {
		case "denied":
			return void error(res, 403, "whois access denied");
		case "no-backend":
			return void error(res, 500, "server has no local backend");
		case "wrong-server":
			return void error(res, 404, "404 page not found");
		case "redirect":
			res.writeHead(302, { Location: "/localapi/v0/other" });
			return void res.end();
		case "garbage":
			return void req.socket.end("\u0016\u0003\u0001 this is no HTTP\r\n\r\n");
		case "upgrade":
			return void req.socket.end(
				"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: ts-dial\r\n\r\n",
			);
		case "not-json":
			res.writeHead(200, { "Content-Type": "text/html" });
			return void res.end("<html>\u001b[31mTailscale</html>");
		case "wrong-shape":
			return void json(res, { Node: null, UserProfile: null, CapMap: null });
		case "hang":
			return;
		case "stall":
			res.writeHead(200, { "Content-Type": "application/json" });
			return void res.write('{\n\t"Node": {');
		case "truncated":
			res.writeHead(200, { "Content-Length": "1000" });
			res.write('{\n\t"Node": {');
			return void setImmediate(() => req.socket.destroy());
		case "reset":
			return void req.socket.destroy();
		case "endless": {
			const block = Buffer.alloc(64 * 1024, " ");
			const pour = () => {
				while (!res.destroyed && res.write(block));
			};
			res.writeHead(200, { "Content-Type": "application/json" });
			res.on("drain", pour);
			pour();
		}
	}
}

import { Agent, request } from "../net/http.ts";
import {
	formatHostPort,
	isLoopbackAddress,
	parseAddress,
} from "../net/ranges.ts";
import {
	maxReplyBytes,
	type NodesAnswer,
	printable,
	type Reply,
	read,
	readNodes,
	readStatus,
	readWhois,
	type Silence,
	type StatusAnswer,
	type WhoisAnswer,
} from "./localApi.ts";

/** The only Host that LocalAPI takes over its socket (ipn/localapi/localapi.go:validHost). */
const localApiHost = "local-tailscaled.sock";
/** Connections to tailscaled at once; further look-ups queue, on their own time-out. */
const maxSockets = 8;
const maxKnownAddresses = 4096;
/** How long an `unreachable` is given again before tailscaled is asked anew. */
const outageMs = 250;
export interface WhoisOptions {
	/** The path of tailscaled's socket. */
	readonly socket: string;
	/**
	 * How long `node` and `unknown` are remembered. A node that loses its tags, its
	 * capabilities or its place in the tailnet keeps them here for so long.
	 */
	readonly cacheMs?: number;
	/** How long one question may take, waiting for its turn included. */
	readonly timeoutMs?: number;
	/** A clock that never goes back, in milliseconds; for the cache alone. */
	readonly nowMs?: () => number;
}

/** A client of tailscaled's LocalAPI. Its promises never reject. It holds nothing open between questions. */
export interface Whois {
	/**
	 * Who is behind a TCP connection's remote end? (client/local/local.go:WhoIsProto)
	 *
	 * A Tailscale address identifies a node by itself, so answers are kept and
	 * shared by address. Two cases are not a remote peer's:
	 * - one of this host's own addresses is answered with this host's own node,
	 *   whichever local user is behind it;
	 * - a loopback address is a peer only if a tailscaled without a tunnel device
	 *   (userspace networking) forwards that very connection. Then the port counts
	 *   and nothing is kept; `unknown` takes tailscaled 182 ms each time (1.100;
	 *   proxymap/proxymap.go:WhoIsIPPort), so ask once for a connection.
	 *
	 * @param address the socket's remote address; `::ffff:` is taken off
	 * @param port the socket's remote port
	 */
	lookup(address: string, port: number): Promise<WhoisAnswer>;
	/** What state is this host's tailscaled in? Asked anew each time. */
	status(): Promise<StatusAnswer>;
	/** Which nodes does this host see, itself included? Asked anew each time. */
	nodes(): Promise<NodesAnswer>;
}

interface Kept {
	readonly answer: WhoisAnswer;
	/** On the clock of the options. */
	readonly untilMs: number;
}

/** Makes a client; nothing is asked before it is used. */
export function createWhois({
	socket,
	cacheMs = 10_000,
	timeoutMs = 2_000,
	nowMs = () => performance.now(),
}: WhoisOptions): Whois {
	const agent = new Agent({ maxSockets });
	const ask = (path: string) => askSocket(socket, agent, path, timeoutMs);
	const kept = new Map<string, Kept>();
	const inFlight = new Map<string, Promise<WhoisAnswer>>();
	let outage: Kept | undefined;

	function keep(key: string, answer: WhoisAnswer, forMs: number): void {
		kept.delete(key);
		// A Map gives back its keys in the order in which they were put in.
		for (const oldest of kept.keys()) {
			if (kept.size < maxKnownAddresses) break;
			kept.delete(oldest);
		}
		kept.set(key, { answer, untilMs: nowMs() + forMs });
	}

	async function askWhois({
		key,
		path,
		isKept,
	}: Question): Promise<WhoisAnswer> {
		const reply = await ask(path);
		const answer = readWhois(reply);
		if (reply.kind === "silence")
			outage = { answer, untilMs: nowMs() + outageMs };
		else if (isKept && (answer.kind === "node" || answer.kind === "unknown"))
			keep(key, answer, cacheMs);
		// Nonsense about one address says nothing of the others.
		else if (isKept && answer.kind === "unreachable")
			keep(key, answer, outageMs);
		inFlight.delete(key);
		return answer;
	}

	return {
		lookup(address, port) {
			const question = questionOf(address, port);
			if (question === undefined)
				return Promise.resolve({
					kind: "refused",
					reason: printable(
						`not asked: ${JSON.stringify(address)} with port ${port} is not a remote end of a connection`,
					),
				});
			const { key } = question;
			const known = kept.get(key);
			if (known !== undefined && nowMs() < known.untilMs)
				return Promise.resolve(known.answer);
			kept.delete(key);

			const running = inFlight.get(key);
			if (running !== undefined) return running;
			if (outage !== undefined && nowMs() < outage.untilMs)
				return Promise.resolve(outage.answer);
			const asked = askWhois(question);
			inFlight.set(key, asked);
			return asked;
		},

		async status() {
			return readStatus(await ask("/localapi/v0/status?peers=false"));
		},

		async nodes() {
			return read(await ask("/localapi/v0/status"), (body) => ({
				kind: "nodes",
				nodes: readNodes(body),
			}));
		},
	};
}

interface Question {
	/** What has the same answer. */
	readonly key: string;
	readonly path: string;
	readonly isKept: boolean;
}

/**
 * tailscaled looks a port up only for connections that it forwards itself, which
 * come from loopback (wgengine/netstack/netstack.go:forwardTCP). Told the port of
 * an address that it does not know, it searches and sleeps, and holds its central
 * lock meanwhile (ipn/ipnlocal/local.go:WhoIs): for 182 ms in 1.100, and for 363 ms
 * where no `proto` is given. Foreign sources could bring the tailnet to a halt
 * through the gate. Port 0 says that the address is all there is, and is answered
 * in less than 1 ms; older tailscaleds take it too, and not an address without a port.
 */
function questionOf(text: string, port: number): Question | undefined {
	const address = parseAddress(text)?.toString();
	if (address === undefined) return undefined;
	if (!Number.isInteger(port) || port < 0 || port > 65_535) return undefined;
	const isKept = !isLoopbackAddress(address);
	const remote = formatHostPort(address, isKept ? 0 : port);
	return {
		key: remote,
		// Without `proto` a UDP flow from the same port could answer for this connection.
		path: `/localapi/v0/whois?proto=tcp&addr=${encodeURIComponent(remote)}`,
		isKept,
	};
}

/** One GET over the socket. Never rejects; the connection is gone when it resolves or soon after. */
export function askSocket(
	socketPath: string,
	agent: Agent,
	path: string,
	timeoutMs: number,
): Promise<Reply | Silence> {
	// Node takes an empty path for TCP to port 80.
	if (socketPath === "")
		return Promise.resolve({
			kind: "silence",
			reason: "no path of tailscaled's socket is configured",
		});
	return new Promise((resolve) => {
		const req = request({
			socketPath,
			path,
			agent,
			// Without keep-alive a restart of tailscaled leaves no dead connection to trip over.
			headers: { host: localApiHost, connection: "close" },
		});
		const settle = (reply: Reply | Silence) => {
			clearTimeout(timer);
			resolve(reply);
		};
		const fail = (reason: string) => {
			settle({ kind: "silence", reason: printable(reason) });
			req.destroy();
		};
		const timer = setTimeout(
			() =>
				fail(`tailscaled did not answer on ${socketPath} in ${timeoutMs} ms`),
			timeoutMs,
		);
		const onError = (error: NodeJS.ErrnoException) =>
			fail(explain(error, socketPath));

		req.on("error", onError);
		// A switch of protocols, for one, ends a request with neither error nor response.
		const onClose = () =>
			fail(`${socketPath} closed the connection without an answer`);
		req.on("close", onClose);
		req.on("response", (res) => {
			// From here on the response tells how it ended, and perhaps later than this.
			req.off("close", onClose);
			const status = res.statusCode ?? 0;
			const chunks: Buffer[] = [];
			let sizeBytes = 0;
			res.on("data", (chunk: Buffer) => {
				sizeBytes += chunk.length;
				chunks.push(chunk);
				if (sizeBytes <= maxReplyBytes) return;
				settle({ kind: "reply", status, text: undefined });
				req.destroy();
			});
			res.on("end", () =>
				settle({
					kind: "reply",
					status,
					text: Buffer.concat(chunks).toString("utf8"),
				}),
			);
			res.on("error", onError);
		});
		req.end();
	});
}

function explain(
	{ code, message }: NodeJS.ErrnoException,
	socketPath: string,
): string {
	switch (code) {
		case "ENOENT":
			return `found no socket ${socketPath}: is tailscaled running, and is that its socket?`;
		case "ECONNREFUSED":
			return `nobody listens on ${socketPath}: is tailscaled running?`;
		case "EACCES":
		case "EPERM":
			return `the socket ${socketPath} may not be opened by this user (${code}): look at its mode, its folder's, and the unit's sandbox`;
		default:
			return `asking tailscaled on ${socketPath} failed: ${message}`;
	}
}

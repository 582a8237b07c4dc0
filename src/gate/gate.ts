import type {
	IncomingMessage,
	RequestListener,
	Server,
	ServerResponse,
} from "node:http";
import type { Socket } from "node:net";
import httpProxy from "@fastify/http-proxy";
import rateLimit from "@fastify/rate-limit";
import fastify, { type FastifyReply, type FastifyRequest } from "fastify";
import type { Settings } from "../config/load.ts";
import type { Log } from "../log.ts";
import {
	type Connection,
	ConnectionTable,
	cutOff,
	watchPieces,
} from "../net/connections.ts";
import { descriptorLimit, roomForClients } from "../net/descriptors.ts";
import { createServer } from "../net/http.ts";
import { isTailscaleAddress } from "../net/ranges.ts";
import { Roster } from "../net/roster.ts";
import { createWhois, type Whois } from "../net/tailscale.ts";
import { Upstream } from "../net/upstream.ts";
import { SignatureUses } from "../ollama/cliSignature.ts";
import { matchRoute, routes } from "../ollama/routes.ts";
import { Exchange, type Ledger } from "./account.ts";
import { corsHeaders, preflightHeaders } from "./cors.ts";
import { type Head, readHead } from "./head.ts";
import { checkIdentity } from "./identity.ts";
import { JudgedBodies } from "./judgedBodies.ts";
import { type Authentication, authenticate } from "./key.ts";
import { createLimits, WindowStore } from "./limit.ts";
import { type LockedOut, Lockout } from "./lockout.ts";
import { checkModelInPath } from "./modelPolicy.ts";
import { RefusalPace } from "./pace.ts";
import { PieceBudget } from "./pieces.ts";
import { checkExpiry, checkOrigin, checkPolicy } from "./policy.ts";
import {
	endSocket,
	leaveBody,
	lingerForBody,
	type Refusal,
	refuseOnSocket,
	sendRefusal,
} from "./refusal.ts";
import { Relay } from "./relay.ts";
import {
	bodyLengthOf,
	checkFraming,
	checkRoute,
	hasMeaninglessBody,
	keepsConnection,
} from "./route.ts";
import type { Rules } from "./rules.ts";
import { checkSource } from "./source.ts";
import { Uploads } from "./uploads.ts";
import { loggablePath } from "./wrongPath.ts";

/** How often running relays are looked at: for silence, and for keys that expire. */
const sweepIntervalMs = 250;
/** How long a connection may take to send a request's head. */
const headersTimeoutMs = 10_000;
/**
 * How long the connection of a client with a key may idle between requests: longer
 * than the pools of clients and proxies hold theirs (Go 90 s, Caddy 120 s), so that
 * none sends a request on a connection that the gate is just closing.
 */
const keepAliveTimeoutMs = 300_000;
const maxHeaderBytes = 16 * 1024;
/** Requests that a client may send on one connection before it has had their replies. */
const maxPipelined = 64;
/** Keep-alive probes start after this silence and give up about ten seconds later. */
const tcpKeepAliveDelayMs = 30_000;

/** Questions to tailscaled about the other address of whoever showed a wrong key, at once. */
const maxPairings = 32;
/** Locked-out devices that are listed; the count is of all. */
const maxListed = 100;

/** How long what a cut stream was sent may still flow before its connection is closed hard. */
const cutGraceMs = 500;

const revoked: Refusal = {
	status: 401,
	reason: "revoked",
	message: "the key of this request has been revoked",
};
const halfClosed: Refusal = {
	status: 499,
	reason: "half_closed",
	message: "the client closed its side of the connection before the answer",
};
const shuttingDown: Refusal = {
	status: 503,
	reason: "shutdown",
	message: "llamagate is shutting down",
	headers: ["retry-after", "5"],
};

function tooManyConnections(key: string): Refusal {
	return {
		status: 429,
		reason: "connections",
		message: `the key "${key}" has too many connections open; close some`,
		headers: ["retry-after", "1"],
	};
}

/** A request's exchange, as a property of it: a WeakMap costs each garbage collection. */
const held = Symbol("exchange");
type HeldRequest = IncomingMessage & { [held]?: Exchange };

/** The gate without its listeners: it makes HTTP servers that the listener binds. */
export interface Gate {
	/**
	 * A server that sends what it accepts through the gate.
	 *
	 * @param isLocal whether it listens on a Unix socket, where peers have no address
	 */
	createServer(isLocal?: () => boolean): Server;
	/** Puts new rules in force; streams whose key is no longer good are cut. */
	replaceRules(rules: Rules): void;
	/** Refuses what is new, waits for what runs, and cuts what is left after the drain timeout. */
	drain(): Promise<void>;
	/** Lets an address in again that wrong keys have locked out, or all of them. Returns who that was. */
	unlock(address?: string): LockedOut[];
	/** For status and metrics. */
	stats(): GateStats;
}

export interface GateStats {
	readonly connections: number;
	readonly streams: number;
	readonly lockedOut: number;
	/** Who they are, at most a hundred. */
	readonly lockouts: readonly LockedOut[];
}

/**
 * Wires the steps of a request's way together, in their order: source,
 * lockout, route, key, policy, limit, relay, account.
 */
export async function createGate(
	first: Rules,
	ledger: Ledger,
	log: Log,
): Promise<Gate> {
	let rules = first;
	let upstream = new Upstream(rules.settings.upstream);
	let whois = openWhois(rules.settings);
	let pairings = 0;
	let draining = false;
	/** When each was said last. */
	const saidAtMs = new Map<string, number>();
	const descriptors = descriptorLimit();
	const connections = new ConnectionTable(() =>
		roomForClients(descriptors, upstream.maxConnections),
	);
	const lockout = new Lockout();
	const pace = new RefusalPace();
	const signatureUses = new SignatureUses();
	const relays = new Roster<Relay>();
	const pieces = new PieceBudget();
	const judgedBodies = new JudgedBodies();
	const uploads = new Uploads();

	// Fastify sees only what the first five steps let through. Its own routing then
	// works on a path that is in the table to the letter, whatever the client sent.
	let toFastify: RequestListener = () => {};
	const app = fastify({
		logger: false,
		trustProxy: false,
		exposeHeadRoutes: false,
		routerOptions: { maxParamLength: 1024 },
		rewriteUrl: (req) => pathOf(req as IncomingMessage),
		serverFactory: (handler) => {
			toFastify = handler as RequestListener;
			return createServer();
		},
	});
	await app.register(rateLimit, { global: false, store: WindowStore });
	const limits = createLimits(app, () => rules.settings, exchangeOf);

	app.addHook("onRequest", async (request, reply) => {
		const exchange = exchangeOf(request);
		const { mode } = rules.settings.identity;
		const refusal =
			(mode === "off"
				? undefined
				: await checkIdentity(exchange, mode, whois)) ??
			(await limits.check(request));
		// The client may have left while the limits were counted.
		if (refusal === undefined && !exchange.ended) return;
		reply.hijack();
		if (refusal !== undefined) refuse(exchange, refusal);
	});
	app.setErrorHandler((error, request, reply) => {
		log.error(
			{ err: error },
			"a step of the gate failed; the request was refused",
		);
		reply.hijack();
		sendRefusal(exchangeOf(request), {
			status: 500,
			reason: "internal",
			message: "llamagate failed; its log says why",
		});
	});
	await app.register(httpProxy, {
		upstream: "http://127.0.0.1",
		routes: [...new Set(routes.map(({ path }) => path))],
		httpMethods: [...new Set(routes.map(({ method }) => method))],
		handler: relayTo,
	});
	await app.ready();

	function relayTo(
		request: FastifyRequest,
		reply: FastifyReply,
		destination: string,
	): void {
		reply.hijack();
		const exchange = exchangeOf(request);
		const { route } = exchange;
		if (route === undefined)
			throw new Error("a request without a route reached the relay");
		const refusal = checkStillGood(exchange);
		if (refusal !== undefined) {
			sendRefusal(exchange, refusal);
			return;
		}
		const relay = new Relay(
			exchange,
			route,
			() => upstream,
			rules.settings,
			judgedBodies,
			uploads,
		);
		relays.add(relay);
		exchange.atEnd(() => relays.delete(relay));
		relay.start(destination);
	}

	/** Identity and limits take a while, and a reload may have come between. */
	function checkStillGood({ credential }: Exchange): Refusal | undefined {
		if (credential === undefined) return revoked;
		const current = rules.keyring.current(credential.id);
		if (current === undefined || current.key.canary) return revoked;
		if (
			current.key.entry === credential.key.entry &&
			current.expiresAtMs === credential.expiresAtMs
		)
			return undefined;
		return {
			status: 503,
			reason: "key_changed",
			message: "the rules of this key have just been changed; try again",
			headers: ["retry-after", "1"],
		};
	}

	/** Steps 1 to 5, at once and without waiting for anything. */
	function admit(
		req: IncomingMessage,
		res: ServerResponse,
		expectsContinue: boolean,
	): void {
		const connection = connections.of(req.socket);
		if (connection === undefined) return void req.socket.destroy();
		connection.latest = req;
		// Replies wait in memory for the one before them, so there may be only so many,
		// and none behind a refusal that is held back.
		const mostUnanswered = connection.waits ? 1 : maxPipelined;
		if (req.socket.destroyed || ++connection.unanswered > mostUnanswered) {
			cutOff(req.socket);
			return;
		}
		res.once("finish", () => {
			connection.unanswered -= 1;
			// All of a request hangs on it, and an idle connection has no need of it.
			if (req.complete && connection.latest === req)
				connection.latest = undefined;
		});
		// A reply has been written that closes the connection behind itself.
		if (connection.closing) return;
		const { settings } = rules;
		if (
			checkSource(connection.parsedAddress, settings.sources) !== undefined &&
			settings.onForeignSource === "drop"
		)
			return void req.socket.destroy();

		const head = readHead(req.rawHeaders);
		const match = matchRoute(req.method ?? "", req.url ?? "");
		const exchange = new Exchange(
			ledger,
			req,
			res,
			connection,
			head,
			match,
			expectsContinue,
		);
		(req as HeldRequest)[held] = exchange;
		const misframed = checkFraming(head, req.httpVersion);
		// Where such a request ends, two readers may not agree. Node itself does not
		// read what came in one packet behind a request for an upgrade.
		connection.closing =
			misframed !== undefined ||
			head.upgrade.length > 0 ||
			hasMeaninglessBody(req.method, head) ||
			// Node closes it behind its reply.
			(expectsContinue && bodyLengthOf(head) === 0) ||
			!keepsConnection(req.httpVersion, head);
		exchange.closing = draining || connection.closing;
		const [origin] = head.origin;
		exchange.replyHeaders.push(...corsHeaders(origin, settings.corsOrigins));

		const preflight = preflightHeaders(
			req.method,
			head,
			req.rawHeaders,
			settings.corsOrigins,
		);
		const refusal = decide(exchange, preflight !== undefined);
		if (refusal !== undefined) {
			refuse(exchange, refusal);
			return;
		}
		if (preflight !== undefined) {
			paced(exchange, () => {
				if (exchange.ended) return;
				if (leaveBody(exchange)) exchange.closing = true;
				res.writeHead(204, [
					...preflight,
					...(exchange.closing ? exchange.closeBehind() : []),
				]);
				res.end();
				lingerForBody(req);
				exchange.status = 204;
				exchange.end("ok");
			});
			return;
		}
		if (head.transferEncoding.length > 0) {
			const inPieces = pieces.check(exchange.connection.key ?? "");
			if (inPieces !== undefined) {
				refuse(exchange, inPieces);
				return;
			}
			countPieces(exchange);
		}
		// The gate has read them. Whatever type and length they tell of, a body is passed
		// on as it is: Fastify would parse it.
		req.headers = {};
		toFastify(req, res);

		function decide(
			exchange: Exchange,
			isPreflight: boolean,
		): Refusal | undefined {
			const { address, parsedAddress } = exchange.connection;
			const foreign = checkSource(parsedAddress, settings.sources);
			// A page may read why it is turned away only if its preflight is not.
			if (foreign !== undefined || isPreflight) return foreign;
			const lockedOut = lockout.check(address, performance.now());
			if (lockedOut !== undefined) return lockedOut;

			const authentication = identify(address, req, head, exchange.id);
			if (authentication.kind === "refused") return authentication.refusal;
			const { credential } = authentication;
			exchange.credential = credential;
			const expired = checkExpiry(credential, Date.now());
			if (expired !== undefined) return expired;
			const { name, limits } = credential.key;
			const most = limits.concurrent ?? rules.settings.limits.perKey.concurrent;
			if (!connections.markKnown(exchange.connection, name, most)) {
				exchange.closing = true;
				return tooManyConnections(name);
			}

			// Found before, said only now: without a key nobody learns which paths there are.
			const target = req.url ?? "";
			if (match.kind === "unknown") exchange.wrongPath = loggablePath(target);
			const misrouted = misframed ?? checkRoute(match, target, head);
			if (misrouted !== undefined) return misrouted;
			if (match.kind !== "route")
				throw new Error("a request that matches no route was let through");
			if (draining) return shuttingDown;
			return (
				checkOrigin(authentication.basic, origin, settings.corsOrigins) ??
				checkPolicy(credential, match.route, Date.now()) ??
				checkModelInPath(credential.key, match.route, match.path) ??
				uploads.checkPath(credential, match.route, match.path)
			);
		}
	}

	/** Sends a refusal, in its turn. */
	function refuse(exchange: Exchange, refusal: Refusal): void {
		paced(exchange, () => sendRefusal(exchange, refusal));
	}

	/**
	 * Answers what goes no further, later to an address, or a key, that collects
	 * very many such answers.
	 */
	function paced(exchange: Exchange, answer: () => void): void {
		const { connection } = exchange;
		const waitMs = pace.take(
			connection.key === undefined
				? connection.address
				: `key ${connection.key}`,
			performance.now(),
		);
		if (waitMs === undefined) {
			cutOff(exchange.req.socket);
			return;
		}
		if (waitMs === 0) {
			answer();
			return;
		}
		// Its body is not waited for.
		leaveBody(exchange);
		connection.waits = true;
		const timer = setTimeout(() => {
			connection.waits = false;
			answer();
		}, waitMs);
		exchange.atEnd(() => clearTimeout(timer));
	}

	/** Looks after what a body's pieces cost, from the first one on. */
	function countPieces(exchange: Exchange): void {
		const { req, connection } = exchange;
		const { key = "" } = connection;
		const refusalOf = pieces.forBody(key);
		const watch = watchPieces(req.socket, (sizeBytes) => {
			if (exchange.ended) return true;
			const refusal = refusalOf(sizeBytes);
			if (refusal === undefined) return true;
			// Whatever has begun of a reply cannot be told from an end.
			if (exchange.res.headersSent) cutOff(req.socket);
			else refuse(exchange, refusal);
			return false;
		});
		exchange.atEnd(watch);
	}

	function accept(socket: Socket, local: boolean): void {
		const connection = connections.open(socket, local);
		if (typeof connection === "string") {
			if (connection !== "gone")
				warnNowAndThen(
					{ ip: socket.remoteAddress },
					connection === "full"
						? `too many connections for ${descriptors} file descriptors (ulimit -n, LimitNOFILE=); new ones are closed`
						: "too many connections without a key; new ones are closed",
				);
			return void socket.destroy();
		}
		// Before Node's own listener, which closes the connection.
		socket.prependListener("end", () => answerHalfClosed(connection));
		const { settings } = rules;
		if (
			settings.onForeignSource === "drop" &&
			checkSource(connection.parsedAddress, settings.sources) !== undefined
		) {
			ledger.enterUnreadable(connection.address, 0, "foreign_source");
			socket.destroy();
		}
	}

	/**
	 * A client that has closed its own side is gone for Go's server, and so for
	 * Ollama, which stops and answers 499. Only the first request on a connection
	 * can be answered; the others end with it.
	 */
	function answerHalfClosed(connection: Connection): void {
		for (const exchange of connection.exchanges) {
			if (exchange.credential === undefined || exchange.res.socket === null)
				continue;
			exchange.closing = true;
			sendRefusal(exchange, halfClosed);
		}
	}

	/** What may happen a thousand times a second is said once in ten. */
	function warnNowAndThen(facts: object, message: string): void {
		const nowMs = performance.now();
		if (nowMs - (saidAtMs.get(message) ?? Number.NEGATIVE_INFINITY) < 10_000)
			return;
		saidAtMs.set(message, nowMs);
		log.warn(facts, message);
	}

	/** Steps 1 and 2: who is turned away before anything of theirs is looked at. */
	function turnAway({
		address,
		parsedAddress,
	}: Connection): Refusal | undefined {
		return (
			checkSource(parsedAddress, rules.settings.sources) ??
			lockout.check(address, performance.now())
		);
	}

	/** Step 4, with what a wrong key has for consequences. */
	function identify(
		address: string,
		req: IncomingMessage,
		head: Head,
		requestId: string | undefined,
	): Authentication {
		const line = { method: req.method ?? "", target: req.url ?? "" };
		const authentication = authenticate(
			head,
			line,
			rules.keyring,
			signatureUses,
			Date.now(),
		);
		if (authentication.kind === "refused" && authentication.guesses.length > 0)
			countFailure(address, req, authentication.guesses, requestId);
		if (authentication.canary !== undefined)
			ledger.enterCanaryUse(authentication.canary, address, requestId);
		return authentication;
	}

	function countFailure(
		address: string,
		req: IncomingMessage,
		guesses: readonly string[],
		requestId: string | undefined,
	): void {
		const failure = lockout.recordFailure(
			address,
			guesses,
			rules.settings.limits.authFailures,
			performance.now(),
		);
		ledger.enterAuthFailure(address, requestId, failure);
		if (failure.fresh > 0) pairAddresses(address, req.socket.remotePort ?? 0);
	}

	/** A device has an address of each kind: whoever is locked out at one must not go on from the other. Nobody waits for it. */
	function pairAddresses(address: string, port: number): void {
		if (
			!isTailscaleAddress(address) ||
			lockout.isPaired(address) ||
			pairings >= maxPairings
		)
			return;
		pairings += 1;
		void whois.lookup(address, port).then((answer) => {
			pairings -= 1;
			if (answer.kind !== "node") return;
			const { addresses, name } = answer.node;
			if (!addresses.includes(address)) return;
			const { authFailures } = rules.settings.limits;
			lockout.pair(addresses, name, authFailures, performance.now());
		});
	}

	/** Bytes that Node's parser refuses, and connections that take too long to say anything. */
	function refuseUnreadable(
		error: NodeJS.ErrnoException,
		socket: Socket,
	): void {
		const connection = connections.of(socket);
		// Behind a reply that has begun, more bytes would be taken for a part of it.
		if (
			connection === undefined ||
			connection.exchanges.size > 0 ||
			error.code === "ECONNRESET"
		) {
			socket.destroy();
			return;
		}
		// Its reply is out, be it that of the request whose body these bytes break off.
		// Another would be taken for the next request's.
		if (
			connection.closing ||
			connection.latest?.complete === false ||
			error.code === "HPE_CLOSED_CONNECTION"
		) {
			endSocket(socket, connection.address);
			return;
		}
		const { address } = connection;
		answerOnSocket(
			address,
			socket,
			turnAway(connection) ?? unreadable(error.code),
		);
	}

	/** CONNECT has no reply object; the gate is nobody's tunnel, with a key or without. */
	function refuseTunnel(req: IncomingMessage, socket: Socket): void {
		const connection = connections.of(socket);
		// There is no place for an answer in the middle of another.
		if (
			connection === undefined ||
			connection.closing ||
			connection.exchanges.size > 0
		) {
			socket.destroy();
			return;
		}
		const { address } = connection;
		const decide = (): Refusal => {
			const turnedAway = turnAway(connection);
			if (turnedAway !== undefined) return turnedAway;
			const head = readHead(req.rawHeaders);
			const authentication = identify(address, req, head, undefined);
			if (authentication.kind === "refused") return authentication.refusal;
			return {
				status: 405,
				reason: "wrong_method",
				message: "llamagate opens no tunnels",
			};
		};
		answerOnSocket(address, socket, decide());
	}

	function answerOnSocket(
		address: string,
		socket: Socket,
		refusal: Refusal,
	): void {
		ledger.enterUnreadable(address, refusal.status, refusal.reason);
		if (
			refusal.reason === "foreign_source" &&
			rules.settings.onForeignSource === "drop"
		)
			socket.destroy();
		else refuseOnSocket(socket, address, "native", refusal);
	}

	/** Cuts streams whose key has been revoked, has expired, or has lost the scope they run under. */
	function cutUnwanted(): void {
		for (const relay of relays) {
			const { credential, route } = relay.exchange;
			if (credential === undefined || route === undefined) continue;
			const current = rules.keyring.current(credential.id);
			if (current !== undefined) relay.exchange.credential = current;
			const refusal =
				current === undefined ||
				current.key.canary ||
				current.key.name !== credential.key.name
					? revoked
					: checkPolicy(current, route, Date.now());
			if (refusal !== undefined) relay.cut(refusal, cutGraceMs);
		}
	}

	const sweeper = setInterval(() => {
		pace.sweep(performance.now());
		pieces.sweep();
		upstream.sweep(performance.now());
		for (const relay of relays) relay.sweep(sweepIntervalMs);
		const nowMs = Date.now();
		for (const { exchange } of relays) {
			if (
				exchange.credential !== undefined &&
				exchange.credential.expiresAtMs <= nowMs
			)
				return cutUnwanted();
		}
	}, sweepIntervalMs);
	sweeper.unref();

	const servers = new Set<Server>();
	return {
		createServer(isLocal = () => false) {
			const server = createServer({
				// The gate answers a missing Host itself, with a body and not before the key.
				requireHostHeader: false,
				maxHeaderSize: maxHeaderBytes,
				headersTimeout: headersTimeoutMs,
				// An upload may take hours; the relay notices when it stands still.
				requestTimeout: 0,
				keepAliveTimeout: keepAliveTimeoutMs,
				connectionsCheckingInterval: 1_000,
				keepAlive: true,
				keepAliveInitialDelay: tcpKeepAliveDelayMs,
				noDelay: true,
			});
			server.on("connection", (socket) => accept(socket, isLocal()));
			server.on("request", (req, res) => admit(req, res, false));
			server.on("checkContinue", (req, res) => admit(req, res, true));
			server.on("checkExpectation", (req, res) => admit(req, res, false));
			server.on("connect", (req, socket) =>
				refuseTunnel(req, socket as Socket),
			);
			server.on("clientError", (error, socket) =>
				refuseUnreadable(error, socket as Socket),
			);
			server.once("close", () => servers.delete(server));
			servers.add(server);
			return server;
		},

		replaceRules(next) {
			const previous = rules;
			rules = next;
			whois = openWhois(next.settings);
			if (
				JSON.stringify(previous.settings.upstream) !==
				JSON.stringify(next.settings.upstream)
			) {
				upstream.retire();
				upstream = new Upstream(next.settings.upstream);
			}
			cutUnwanted();
		},

		async drain() {
			draining = true;
			for (const server of servers) server.closeIdleConnections();
			for (const { exchange } of relays) exchange.closing = true;
			const deadline = performance.now() + rules.settings.drainTimeoutMs;
			while (relays.size > 0 && performance.now() < deadline) await wait(20);
			// Each leaves the roster as it is cut, with its error still on its way.
			const cutCount = relays.size;
			for (const relay of relays) relay.cut(shuttingDown, cutGraceMs);
			await wait(cutCount > 0 ? cutGraceMs : 0);
			clearInterval(sweeper);
			for (const server of servers) server.closeAllConnections();
			upstream.destroy();
			await app.close();
		},

		stats() {
			return {
				connections: connections.openCount,
				streams: relays.size,
				lockedOut: lockout.lockedCount(performance.now()),
				lockouts: lockout.list(performance.now(), maxListed),
			};
		},

		unlock(address) {
			const nowMs = performance.now();
			return address === undefined
				? lockout.unlockAll(nowMs)
				: lockout.unlock(address, nowMs);
		},
	};
}

/** The cache of answers starts anew with it, so that a reload also forgets who was who. */
function openWhois({ identity }: Settings): Whois {
	return createWhois({ socket: identity.socket });
}

function exchangeOf(request: FastifyRequest): Exchange {
	const exchange = (request.raw as HeldRequest)[held];
	if (exchange === undefined)
		throw new Error("a request came to Fastify past the gate's first steps");
	return exchange;
}

function pathOf(req: IncomingMessage): string {
	const match = (req as HeldRequest)[held]?.match;
	if (match?.kind !== "route")
		throw new Error("a request came to Fastify without a route");
	return match.path;
}

function unreadable(code: string | undefined): Refusal {
	switch (code) {
		case "HPE_HEADER_OVERFLOW":
			return {
				status: 431,
				reason: "head_too_large",
				message: `a request's head may have at most ${maxHeaderBytes} bytes`,
			};
		case "ERR_HTTP_REQUEST_TIMEOUT":
			return {
				status: 408,
				reason: "head_timeout",
				message: "the request's head took too long",
			};
		default:
			return {
				status: 400,
				reason: "malformed",
				message: "this is not a well-formed HTTP/1.1 request",
			};
	}
}

function wait(durationMs: number): Promise<void> {
	return new Promise((resolve) => setTimeout(resolve, durationMs));
}

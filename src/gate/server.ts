import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { Socket } from "node:net";
import { createServer } from "../net/http.ts";
import { refuseTunnel, turnAway } from "./admission.ts";
import { type Connection, cutOff } from "./connection.ts";
import {
	endSocket,
	ignoreRest,
	type Refusal,
	refuseOnSocket,
	sendRefusal,
} from "./refusal.ts";
import { checkSource } from "./source.ts";
import type { GateState } from "./state.ts";

/** How long a connection may take to send a request's head. */
const headersTimeoutMs = 10_000;
const maxHeaderBytes = 16 * 1024;
/** Requests that a client may send on one connection before it has had their replies. */
const maxPipelined = 64;
/** Keep-alive probes start after this silence and give up about ten seconds later. */
const tcpKeepAliveDelayMs = 30_000;

const halfClosed: Refusal = {
	status: 499,
	reason: "half_closed",
	message: "the client closed its side of the connection before the answer",
};

/** Takes a request that has its place on a connection. */
type OnRequest = (
	connection: Connection,
	req: IncomingMessage,
	res: ServerResponse,
	expectsContinue: boolean,
) => void;

/**
 * A server whose connections are the gate's: as many as there is room for, none
 * that says nothing, and an answer for what is not HTTP.
 *
 * @param isLocal whether it listens on a Unix socket, where peers have no address
 */
export function createGateServer(
	state: GateState,
	isLocal: () => boolean,
	onRequest: OnRequest,
): Server {
	const server = createServer({
		// The gate answers a missing Host itself, with a body and not before the key.
		requireHostHeader: false,
		maxHeaderSize: maxHeaderBytes,
		headersTimeout: headersTimeoutMs,
		// An upload may take hours; the relay notices when it does not move.
		requestTimeout: 0,
		// A timer for each request; the gate's sweep looks after idle connections.
		keepAliveTimeout: 0,
		connectionsCheckingInterval: 1_000,
		keepAlive: true,
		keepAliveInitialDelay: tcpKeepAliveDelayMs,
		noDelay: true,
	});
	// Beyond a number of lines older Nodes leave the rest out, and yet go by what they say
	// of the body. All there can be are seen; maxHeaderSize bounds them.
	server.maxHeadersCount = 0;
	const take =
		(expectsContinue: boolean) =>
		(req: IncomingMessage, res: ServerResponse) => {
			const connection = takePlace(state, req, res);
			if (connection !== undefined)
				onRequest(connection, req, res, expectsContinue);
		};
	// Node's own, behind which a connection is one of HTTP.
	const speakHttp = server.listeners("connection")[0] as (
		this: Server,
		socket: Socket,
	) => void;
	server.removeAllListeners("connection");
	server.on("connection", (socket) =>
		accept(state, socket, isLocal(), (encrypted) =>
			speakHttp.call(server, encrypted),
		),
	);
	server.on("request", take(false));
	server.on("checkContinue", take(true));
	server.on("checkExpectation", take(false));
	server.on("connect", (req, socket) =>
		answerTunnel(state, req, socket as Socket),
	);
	server.on("clientError", (error, socket) =>
		refuseUnreadable(state, error, socket as Socket),
	);
	return server;
}

/**
 * Has a connection's place noted, or closes it.
 *
 * @param speakHttp has Node read requests from a socket
 */
function accept(
	state: GateState,
	socket: Socket,
	local: boolean,
	speakHttp: (socket: Socket) => void,
): void {
	const connection = state.connections.open(socket, local);
	if (typeof connection === "string") {
		if (connection !== "gone")
			state.warnNowAndThen(
				{ ip: socket.remoteAddress },
				connection === "full"
					? `too many connections for ${state.descriptors} file descriptors (ulimit -n, LimitNOFILE=); new ones are closed`
					: "too many connections without a key; new ones are closed",
			);
		return void socket.destroy();
	}
	const isEncrypted = state.settings.tls !== undefined && !local;
	// A handshake costs more than an answer, so under TLS nobody foreign gets one.
	if (
		isDropped(state, connection) ||
		(isEncrypted && checkSource(connection, state.settings.sources))
	) {
		state.accessLog.enterUnreadable(connection.address, 0, "foreign_source");
		return void socket.destroy();
	}
	const begin = (over: Socket) => {
		speakHttp(over);
		state.connections.attach(over, connection);
		// Before Node's own listener, which closes the connection.
		over.prependListener("end", () => answerHalfClosed(connection));
	};
	if (isEncrypted)
		state.handshakes.begin(connection, socket, {
			encrypted: begin,
			plain: (plain) => answerPlain(state, connection, plain),
		});
	else begin(socket);
}

/** A client that speaks no TLS where nothing else is spoken. */
function answerPlain(
	state: GateState,
	connection: Connection,
	socket: Socket,
): void {
	const [name = "THIS-NODE"] = state.handshakes.certificate?.names ?? [];
	answerOnSocket(
		state,
		connection,
		socket,
		turnAway(state, connection) ?? {
			status: 400,
			reason: "plain_http",
			message: `this port speaks HTTPS: use https://${name}:${socket.localPort}`,
		},
	);
}

/** Whether a foreign peer gets no answer at all. */
function isDropped({ settings }: GateState, connection: Connection): boolean {
	return (
		settings.onForeignSource === "drop" &&
		checkSource(connection, settings.sources) !== undefined
	);
}

/** The connection of a request that may be looked at; `undefined` if it goes no further. */
function takePlace(
	state: GateState,
	req: IncomingMessage,
	res: ServerResponse,
): Connection | undefined {
	const connection = state.connections.of(req.socket);
	if (connection === undefined) return void req.socket.destroy();
	connection.latest = req;
	connection.isUsed = true;
	// Replies wait in memory for the one before them, so there may be only so many,
	// and none behind a refusal that is held back.
	const mostUnanswered = connection.waits ? 1 : maxPipelined;
	if (req.socket.destroyed || ++connection.unanswered > mostUnanswered)
		return void cutOff(req.socket);
	res.on("finish", () => {
		connection.unanswered -= 1;
		// All of a request hangs on it, and an idle connection has no need of it.
		if (req.complete && connection.latest === req)
			connection.latest = undefined;
	});
	// Carried out, this one could lose its reply.
	for (const exchange of connection.exchanges)
		if (exchange.mayYetClose) {
			exchange.closing = true;
			connection.closing = true;
		}
	// A reply has been written, or will be, that closes the connection behind itself.
	// Left unread, this would have the connection reset behind that, and hide the client's end.
	if (connection.closing) return void ignoreRest(connection);
	if (isDropped(state, connection)) return void req.socket.destroy();
	return connection;
}

/**
 * A client that has closed its own side is gone for Go's server, and so for
 * Ollama, which stops and answers 499. Only the first request on a connection
 * can be answered; the others end with it.
 */
function answerHalfClosed(connection: Connection): void {
	for (const exchange of connection.exchanges) {
		const { credential, res } = exchange;
		// What has begun runs into its client's absence by itself.
		if (credential === undefined || res.socket === null || res.headersSent)
			continue;
		exchange.closing = true;
		sendRefusal(exchange, halfClosed);
	}
}

/** Bytes that Node's parser refuses, and connections that take too long to say anything. */
function refuseUnreadable(
	state: GateState,
	error: NodeJS.ErrnoException,
	socket: Socket,
): void {
	const connection = state.connections.of(socket);
	if (connection === undefined || error.code === "ECONNRESET") {
		socket.destroy();
		return;
	}
	const { closing, latest } = connection;
	const isBehindLast = closing || error.code === "HPE_CLOSED_CONNECTION";
	const isInBody = latest?.complete === false;
	if (connection.exchanges.size > 0) {
		// Nothing is read behind a connection's last request, and its reply goes on. Another
		// answer would be taken for a part of a reply that has begun.
		if (isBehindLast && !isInBody) ignoreRest(connection);
		else socket.destroy();
		return;
	}
	// Its reply is out, be it that of the request whose body these bytes break off.
	// Another would be taken for the next request's.
	if (isBehindLast || isInBody) {
		endSocket(socket, connection.address);
		return;
	}
	const refusal = turnAway(state, connection) ?? unreadable(error.code);
	answerOnSocket(state, connection, socket, refusal);
}

function answerTunnel(
	state: GateState,
	req: IncomingMessage,
	socket: Socket,
): void {
	const connection = state.connections.of(socket);
	// An answer in the middle of another would be taken for a part of it.
	if (
		connection === undefined ||
		connection.closing ||
		connection.exchanges.size > 0
	) {
		socket.destroy();
		return;
	}
	const refusal = refuseTunnel(state, connection, req);
	answerOnSocket(state, connection, socket, refusal);
}

function answerOnSocket(
	state: GateState,
	connection: Connection,
	socket: Socket,
	refusal: Refusal,
): void {
	const { address } = connection;
	state.accessLog.enterUnreadable(address, refusal.status, refusal.reason);
	if (refusal.reason === "foreign_source" && isDropped(state, connection))
		socket.destroy();
	else refuseOnSocket(socket, address, "native", refusal);
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
		case "HPE_INVALID_METHOD":
			// Another protocol begins with none, either.
			return {
				status: 400,
				reason: "malformed",
				message: "this does not begin with a method that is known here",
			};
		default:
			return {
				status: 400,
				reason: "malformed",
				message: "this is not a well-formed HTTP/1.1 request",
			};
	}
}

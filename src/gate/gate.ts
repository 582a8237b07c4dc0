import type { IncomingMessage, Server, ServerResponse } from "node:http";
import type { FastifyInstance } from "fastify";
import type { GateLive } from "../admin/live.ts";
import type { HostStatus, LockedOut, StateStatus } from "../admin/status.ts";
import type { Raise } from "../ledger/alarms/alarm.ts";
import type { Budgets, Cost } from "../ledger/budgets.ts";
import type { Log } from "../log.ts";
import { matchRoute } from "../ollama/routes.ts";
import type { QueueStats } from "../queue/stats.ts";
import type { Certificate } from "../tls/certificate.ts";
import type { AccessLog } from "./accessLog.ts";
import { admit, admitKnown, admitPreflight } from "./admission.ts";
import { settleBudgets } from "./budget.ts";
import type { Connection } from "./connection.ts";
import { corsHeaders, preflightHeaders } from "./cors.ts";
import { drainRelays } from "./drain.ts";
import { Exchange } from "./exchange.ts";
import { createApp, failedStep, internalFault, pass } from "./fastify.ts";
import type { HandshakeCounts } from "./handshakes.ts";
import { describeHost } from "./hostStats.ts";
import { liveOf } from "./live.ts";
import { logIn, mayLogIn } from "./login.ts";
import { countPieces } from "./pieces.ts";
import {
	leaveBody,
	lingerForBody,
	type Refusal,
	sendRefusal,
} from "./refusal.ts";
import { Relay } from "./relay.ts";
import { readHead } from "./requestHead.ts";
import {
	bodyLengthOf,
	checkFraming,
	hasMeaninglessBody,
	keepsConnection,
} from "./route.ts";
import type { Rules } from "./rules.ts";
import { createGateServer } from "./server.ts";
import { Shared } from "./shared/shared.ts";
import { SpareMemory } from "./spareMemory.ts";
import { GateState } from "./state.ts";
import { checkStillGood, judgeAgain } from "./stillGood.ts";

/** How often running relays are looked at: for silence, and for keys that expire. */
const sweepIntervalMs = 250;
/** Locked-out devices that are listed; the count is of all. */
const maxListed = 100;
/** How long what a cut stream was sent may still flow before its connection is closed hard. */
const cutGraceMs = 500;

/** The gate without its listeners: it makes HTTP servers that the listener binds. */
export interface Gate {
	/**
	 * A server that sends what it accepts through the gate.
	 *
	 * @param isLocal whether it listens on a Unix socket, where peers have no address
	 */
	createServer(isLocal?: () => boolean): Server;
	/** What keys have used of their budgets. */
	readonly budgets: Budgets;
	/** Charges what a request cost that has ended; once. */
	settle(exchange: Exchange, cost: Cost, endedAtMs: number): void;
	/** Puts new rules in force; streams whose key has lost its validity are cut. */
	replaceRules(rules: Rules): void;
	/**
	 * Waits for what runs, and cuts what is left after the drain timeout.
	 *
	 * @param holdMs how long an idle connection is still held open for a request that may be on its way
	 */
	drain(holdMs: number): Promise<void>;
	/** Lets an address in again that wrong keys have locked out, or all of them. Returns who that was. */
	unlock(address?: string): LockedOut[];
	/** For status and metrics. */
	stats(): GateStats;
	/** Has new connections see this certificate; without one they are closed. */
	useCertificate(certificate: Certificate | "coming" | undefined): void;
	/** Who is at work, who waits, and the state of it all. @param startedAt of the daemon */
	live(startedAt: Date): Promise<GateLive>;
}

export interface GateStats {
	readonly connections: number;
	readonly streams: number;
	/** Whether Ollama answered the last request. */
	readonly isUpstreamUp: boolean;
	/** Absent where there is one Ollama. */
	readonly hosts: readonly HostStatus[] | undefined;
	/** What waits for its turn; absent where nothing has to. */
	readonly queue: QueueStats | undefined;
	/** How handshakes have gone; absent where nothing is encrypted. */
	readonly handshakes: HandshakeCounts | undefined;
	readonly lockedOut: number;
	/** Who they are, at most a hundred. */
	readonly lockouts: readonly LockedOut[];
	/** How it shares with the other gates; absent where there are none. */
	readonly state?: StateStatus;
}

/**
 * Wires the steps of a request's way together, in their order: source, lockout,
 * key, route and policy (admission.ts), identity and limits (fastify.ts), relay,
 * access log.
 */
export async function createGate(
	rules: Rules,
	accessLog: AccessLog,
	log: Log,
	raise: Raise = () => {},
): Promise<Gate> {
	const state = new GateState(rules, accessLog, log, raise);
	const shared = await Shared.open(rules, state);
	if (shared !== undefined) state.share(shared);
	const app = await createApp(state, (exchange) => relayTo(state, exchange));
	const servers = new Set<Server>();
	const spareMemory = new SpareMemory(performance.now());
	const sweeper = setInterval(() => {
		sweep(state);
		spareMemory.sweep(performance.now(), state.relays.size > 0);
	}, sweepIntervalMs);
	sweeper.unref();

	return {
		budgets: state.budgets,
		settle: (exchange, cost, endedAtMs) =>
			settleBudgets(state, exchange, cost, endedAtMs),
		createServer(isLocal = () => false) {
			const server = createGateServer(
				state,
				isLocal,
				(connection, req, res, expectsContinue) => {
					const exchange = open(state, connection, req, res, expectsContinue);
					receive(state, app, exchange);
				},
			);
			server.once("close", () => servers.delete(server));
			servers.add(server);
			return server;
		},
		replaceRules(next) {
			state.replaceRules(next);
			cutUnwanted(state);
		},
		async drain(holdMs) {
			state.draining = true;
			await drainRelays(state, holdMs, cutGraceMs);
			clearInterval(sweeper);
			for (const server of servers) server.closeAllConnections();
			state.handshakes.closeAll();
			await state.close();
			await app.close();
		},
		stats() {
			const nowMs = performance.now();
			return {
				connections: state.connections.openCount,
				streams: state.relays.size - state.waiting,
				isUpstreamUp: state.upstreamHealth.isUp,
				queue: state.queueStats(),
				hosts: state.pool?.hosts.all.map((host) => describeHost(host, nowMs)),
				handshakes:
					state.settings.tls === undefined
						? undefined
						: { ...state.handshakes.counts },
				lockedOut: state.lockout.lockedCount(nowMs),
				lockouts: state.lockout.list(nowMs, maxListed),
				...(state.shared && { state: state.shared.counts }),
			};
		},
		useCertificate: (certificate) => state.handshakes.use(certificate),
		live: (startedAt) => liveOf(state, startedAt),
		unlock(address) {
			return unlock(state, address);
		},
	};
}

/** Reads what a request's head says, and whether its connection can go on behind it. */
function open(
	{ accessLog, settings, draining }: GateState,
	connection: Connection,
	req: IncomingMessage,
	res: ServerResponse,
	expectsContinue: boolean,
): Exchange {
	const head = readHead(req.rawHeaders);
	const match = matchRoute(req.method ?? "", req.url ?? "");
	const exchange = new Exchange(
		accessLog,
		req,
		res,
		connection,
		head,
		match,
		expectsContinue,
	);
	exchange.misframed = checkFraming(head, req.httpVersion);
	// Where such a request ends, two readers may not agree. Node itself does not
	// read what came in one packet behind a request for an upgrade.
	connection.closing =
		exchange.misframed !== undefined ||
		head.upgrade.length > 0 ||
		hasMeaninglessBody(req.method, head) ||
		// Node's parser reads no more behind it, as it heeds Proxy-Connection, too.
		!res.shouldKeepAlive ||
		// Node closes it behind its reply.
		(expectsContinue && bodyLengthOf(head) === 0) ||
		!keepsConnection(req.httpVersion, head);
	exchange.closing = connection.closing;
	exchange.parting = draining;
	exchange.replyHeaders.push(
		...corsHeaders(head.origin[0], settings.corsOrigins),
	);
	return exchange;
}

/** Sends a request on its way: to its refusal, to a preflight's answer, or to Fastify. */
function receive(
	state: GateState,
	app: FastifyInstance,
	exchange: Exchange,
): void {
	const { req, head } = exchange;
	const preflight = preflightHeaders(
		req.method,
		head,
		req.rawHeaders,
		state.settings.corsOrigins,
	);
	const refusal =
		preflight === undefined
			? admit(state, exchange)
			: admitPreflight(state, exchange);
	if (refusal !== undefined && mayLogIn(state.settings, refusal)) {
		// What comes of its body is counted from now on, no matter who it turns out to be.
		if (countPieces(state, exchange))
			void admitByLogin(state, app, exchange, refusal);
	} else if (refusal !== undefined)
		state.refusalThrottle.refuse(exchange, refusal);
	else if (preflight !== undefined)
		state.refusalThrottle.answer(exchange, () =>
			answerPreflight(exchange, preflight),
		);
	else if (countPieces(state, exchange)) pass(app, exchange);
}

/** Lets a request without a key in by whose device it comes from, or refuses it. Never rejects. */
async function admitByLogin(
	state: GateState,
	app: FastifyInstance,
	exchange: Exchange,
	noKey: Refusal,
): Promise<void> {
	try {
		const notLetIn = await logIn(state, exchange, noKey);
		// A connection that is gone must not be counted as anybody's any more.
		if (exchange.ended) return;
		const refusal = notLetIn ?? admitKnown(state, exchange);
		if (refusal === undefined) pass(app, exchange);
		else state.refusalThrottle.refuse(exchange, refusal);
	} catch (error) {
		state.log.error({ err: error }, failedStep);
		sendRefusal(exchange, internalFault);
	}
}

function answerPreflight(exchange: Exchange, headers: readonly string[]): void {
	if (exchange.ended) return;
	if (leaveBody(exchange)) exchange.closing = true;
	const { res } = exchange;
	res.writeHead(204, [...headers, ...exchange.connectionLines()]);
	res.end();
	lingerForBody(exchange, true);
	exchange.status = 204;
	exchange.end("ok");
}

/** Step 7. */
function relayTo(state: GateState, exchange: Exchange): void {
	const refusal = checkStillGood(state.rules, exchange);
	if (refusal !== undefined) {
		sendRefusal(exchange, refusal);
		return;
	}
	const relay = new Relay(exchange, state);
	state.relays.add(relay);
	exchange.atEnd(() => state.relays.delete(relay));
	relay.start();
}

/** Looks after time, so that no request needs a timer of its own. */
function sweep(state: GateState): void {
	state.refusalThrottle.sweep(performance.now());
	state.handshakes.sweep(performance.now());
	state.pieces.sweep();
	state.connections.sweep(sweepIntervalMs);
	state.sweep(performance.now());
	for (const relay of state.relays) relay.sweep(sweepIntervalMs);
	const nowMs = Date.now();
	const hasExpired = [...state.relays].some(
		({ exchange }) => exchange.knownCredential.expiresAtMs <= nowMs,
	);
	if (hasExpired) cutUnwanted(state);
}

/** Cuts what may not go on by the rules in force, or no longer at this time. */
function cutUnwanted({ relays, rules }: GateState): void {
	const nowMs = Date.now();
	for (const relay of relays) {
		const { exchange, isSent } = relay;
		const verdict = judgeAgain(rules, exchange, isSent, nowMs);
		if ("status" in verdict) relay.cut(verdict, cutGraceMs);
		else exchange.credential = verdict;
	}
}

/** Lets an address in again, or all of them, here and at the gates that share lockouts. */
function unlock(
	{ lockout, shared }: GateState,
	address: string | undefined,
): LockedOut[] {
	const nowMs = performance.now();
	if (address === undefined) {
		shared?.locks.unlocked(undefined);
		return lockout.unlockAll(nowMs);
	}
	shared?.locks.adopt(address, nowMs);
	const places = lockout.placesOf(address);
	const unlocked = lockout.unlock(address, nowMs);
	shared?.locks.unlocked(places);
	return unlocked;
}

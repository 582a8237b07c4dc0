import type { IncomingMessage } from "node:http";
import { isTailscaleAddress } from "../net/ranges.ts";
import { type Authentication, authenticate } from "./authenticate.ts";
import { checkExpiry, checkOrigin, checkPolicy } from "./authorize.ts";
import type { Connection } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import { checkModelInPath } from "./modelPolicy.ts";
import type { Refusal } from "./refusal.ts";
import { type Head, readHead } from "./requestHead.ts";
import { checkRoute } from "./route.ts";
import type { Shared } from "./shared/shared.ts";
import { checkSource } from "./source.ts";
import type { GateState } from "./state.ts";
import { loggablePath } from "./wrongPath.ts";

/** One question to a request; it goes no further where the answer is a refusal. */
type Step = (state: GateState, exchange: Exchange) => Refusal | undefined;

/**
 * Steps 1 to 5, in their order, at once and without waiting for anything. What
 * follows has to wait (identity and limits, fastify.ts) or needs the body (bodyGuard.ts).
 */
const stepsToKey: readonly Step[] = [source, lockout, key];
const stepsBehindKey: readonly Step[] = [
	expiry,
	connectionsOfKey,
	// Without a key nobody learns which paths there are.
	route,
	shutdown,
	origin,
	scope,
	modelInPath,
	fileOfModel,
];

/** What refuses a request; `undefined` lets it go on, with its credential. */
export function admit(
	state: GateState,
	exchange: Exchange,
): Refusal | undefined {
	return take(stepsToKey, state, exchange) ?? admitKnown(state, exchange);
}

/** The steps behind the key, for a request that has a credential. */
export function admitKnown(
	state: GateState,
	exchange: Exchange,
): Refusal | undefined {
	return take(stepsBehindKey, state, exchange);
}

function take(
	steps: readonly Step[],
	state: GateState,
	exchange: Exchange,
): Refusal | undefined {
	for (const step of steps) {
		const refusal = step(state, exchange);
		if (refusal !== undefined) return refusal;
	}
	return undefined;
}

/** A preflight carries no key. A page may read why it is turned away only if its preflight is not. */
export const admitPreflight: Step = source;

/** Steps 1 and 2 for bytes that never became a request. */
export function turnAway(
	state: GateState,
	connection: Connection,
): Refusal | undefined {
	return (
		checkSource(connection, state.settings.sources) ??
		checkLockout(state, connection.address)
	);
}

/** Steps 1, 2 and 4 for CONNECT, which has no reply object; llamagate is a tunnel for no key. */
export function refuseTunnel(
	state: GateState,
	connection: Connection,
	req: IncomingMessage,
): Refusal {
	const turnedAway = turnAway(state, connection);
	if (turnedAway !== undefined) return turnedAway;
	const head = readHead(req.rawHeaders);
	const authentication = identify(state, connection, req, head, undefined);
	if (authentication.kind === "refused") return authentication.refusal;
	return {
		status: 405,
		reason: "wrong_method",
		message: "llamagate opens no tunnels",
		// What it names is nothing of the gate's, and takes no method (RFC 9110, 10.2.1).
		headers: ["allow", ""],
	};
}

function source({ settings }: GateState, { connection }: Exchange) {
	return checkSource(connection, settings.sources);
}

function lockout(state: GateState, { connection }: Exchange) {
	return checkLockout(state, connection.address);
}

function checkLockout({ lockout, shared }: GateState, address: string) {
	const nowMs = performance.now();
	shared?.locks.adopt(address, nowMs);
	return lockout.check(address, nowMs);
}

function key(state: GateState, exchange: Exchange) {
	const { connection, req, head, id } = exchange;
	const authentication = identify(state, connection, req, head, id);
	if (authentication.kind === "refused") return authentication.refusal;
	exchange.credential = authentication.credential;
	exchange.isBasic = authentication.basic;
	return undefined;
}

function expiry(_state: GateState, exchange: Exchange) {
	return checkExpiry(exchange.knownCredential, Date.now());
}

function connectionsOfKey(
	{ settings, connections }: GateState,
	exchange: Exchange,
): Refusal | undefined {
	const { name, limits } = exchange.knownCredential.key;
	const most = limits.concurrent ?? settings.limits.perKey.concurrent;
	if (connections.markKnown(exchange.connection, name, most)) return undefined;
	exchange.parting = true;
	return {
		status: 429,
		reason: "connections",
		message: `the key "${name}" has too many connections open; close some`,
		headers: ["retry-after", "1"],
	};
}

function route(_state: GateState, exchange: Exchange) {
	const { match, req, head } = exchange;
	const target = req.url ?? "";
	if (match.kind === "unknown") exchange.wrongPath = loggablePath(target);
	return exchange.misframed ?? checkRoute(match, target, head);
}

function shutdown({ refusesNew }: GateState): Refusal | undefined {
	return refusesNew ? shuttingDown : undefined;
}

function origin({ settings }: GateState, { isBasic, head }: Exchange) {
	return checkOrigin(isBasic, head.origin[0], settings.corsOrigins);
}

function scope(_state: GateState, exchange: Exchange) {
	const { route } = exchange.routeMatch;
	return checkPolicy(exchange.knownCredential, route, Date.now());
}

function modelInPath(_state: GateState, exchange: Exchange) {
	const { route, path } = exchange.routeMatch;
	return checkModelInPath(exchange.knownCredential.key, route, path);
}

/** Asked again where something other than the key has narrowed its models. */
export function fileOfModel({ uploads }: GateState, exchange: Exchange) {
	const { route, path } = exchange.routeMatch;
	return uploads.checkPath(exchange.knownCredential, route, path);
}

export const shuttingDown: Refusal = {
	status: 503,
	reason: "shutdown",
	message: "llamagate is shutting down",
	headers: ["retry-after", "5"],
};

/** Step 4, and what a wrong key has for consequences. */
function identify(
	state: GateState,
	{ address }: Connection,
	req: IncomingMessage,
	head: Head,
	requestId: string | undefined,
): Authentication {
	const authentication = authenticate(
		head,
		{ method: req.method ?? "", target: req.url ?? "" },
		state.rules.keyring,
		state.signatureUses,
		Date.now(),
	);
	if (authentication.kind === "refused" && authentication.guesses.length > 0) {
		const failure = state.lockout.recordFailure(
			address,
			authentication.guesses,
			state.settings.limits.authFailures,
			performance.now(),
		);
		state.accessLog.enterAuthFailure(address, requestId, failure);
		if (state.shared !== undefined && failure.fresh > 0 && !failure.lockedOut)
			void tellOfFailure(state, state.shared, address, failure.fresh);
		if (failure.lockedOut)
			state.raise(
				"lockout",
				`${address} is locked out after too many wrong keys`,
			);
		if (failure.fresh > 0)
			pairAddresses(state, address, req.socket.remotePort ?? 0);
	}
	const { canary } = authentication;
	if (canary !== undefined) {
		state.accessLog.enterCanaryUse(canary, address, requestId);
		state.raise(
			"canary",
			`the canary key "${canary}" was used by ${address}: anyone who has it has been where it was kept`,
		);
	}
	return authentication;
}

/** Wrong keys that were shown at several gates count together. No reply waits for it. */
async function tellOfFailure(
	{ settings, log, raise }: GateState,
	shared: Shared,
	address: string,
	fresh: number,
): Promise<void> {
	const { authFailures } = settings.limits;
	if (!(await shared.locks.failed(address, fresh, authFailures))) return;
	log.warn(
		{ event: "locked_out", ip: address },
		"locked out after wrong keys that several gates have seen",
	);
	raise("lockout", `${address} is locked out after too many wrong keys`);
}

/** Questions to tailscaled at once about the other address of a device that showed a wrong key. */
const maxPairings = 32;
let pairings = 0;

/** A device has an address of each kind: one that is locked out at one must not go on from the other. No reply waits for it. */
function pairAddresses(state: GateState, address: string, port: number): void {
	const { lockout, whois } = state;
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
		const { authFailures } = state.settings.limits;
		lockout.pair(addresses, name, authFailures, performance.now());
	});
}

import type { Settings } from "../config/load.ts";
import type { Log, LogSink } from "../log.ts";
import type { Exchange, Outcome } from "./exchange.ts";
import { KeyUses } from "./keyUse.ts";
import type { Failure } from "./lockout.ts";
import { RecentRequests } from "./recent.ts";
import { shownPerson } from "./user.ts";

/** Counters of one key, route, status and outcome. */
export interface RequestMetrics {
	readonly key: string;
	readonly route: string;
	readonly status: number;
	readonly outcome: Outcome;
	requests: number;
	bytesIn: number;
	bytesOut: number;
	tokensIn: number;
	/** The part of `tokensIn` that came from Ollama's cache. */
	tokensCached: number;
	tokensOut: number;
	durationMs: number;
}

/** Takes note of a request that has ended. */
export type Account = (exchange: Exchange, outcome: Outcome) => void;

/** Step 8: what happened, as log lines and counters. Neither ever holds a key, a digest, a prompt or a reply. */
export class AccessLog {
	readonly tallies = new Map<string, RequestMetrics>();
	/** The one that was counted last, and mostly is again. */
	#latest: RequestMetrics | undefined;
	readonly keyUses = new KeyUses();
	readonly recent = new RecentRequests();
	authFailures = 0;
	/** Requests with a good key whose token about a person was not. */
	badPersons = 0;
	/** Times that a canary key was shown. */
	canaryUses = 0;
	/** How much a line says of the person behind a request. */
	people: Settings["logPeople"] = "off";
	/** Whether a device's owner is a person to be named or not, and not written down as the device is. */
	hidesOwners = false;
	readonly #log: Log;
	readonly #sink: LogSink;
	readonly #account: Account | undefined;

	/** @param account is told of each request too */
	constructor(log: Log, sink: LogSink, account?: Account) {
		this.#log = log;
		this.#sink = sink;
		this.#account = account;
	}

	/** Log lines that were dropped since nobody took them. */
	get lostLines(): number {
		return this.#sink.lostLines ?? 0;
	}

	/** Writes a request's line and adds it to its counters. */
	enter(exchange: Exchange, outcome: Outcome): void {
		const nowMs = performance.now();
		const durationMs = nowMs - exchange.startedAtMs;
		const key = labelOf(exchange);
		const route = exchange.route?.id ?? null;
		if (key !== null)
			this.keyUses.record(
				key,
				exchange.node?.name || exchange.connection.address,
				Date.now(),
			);
		this.#count(key ?? "", route ?? "", exchange, outcome, durationMs);
		this.recent.note(exchange, outcome, nowMs);
		this.#account?.(exchange, outcome);
		const level =
			outcome === "upstream_error" || outcome === "cut" ? "warn" : "info";
		if (this.#log.isLevelEnabled(level))
			this.#sink.write(requestLine(exchange, outcome, level, durationMs, this));
	}

	/** Bytes that were no request at all; they have a line too. */
	enterUnreadable(address: string, status: number, reason: string): void {
		const line = {
			key: null,
			node: null,
			route: null,
			model: null,
			status,
			outcome: "refused",
			ip: address,
			reason,
		};
		this.recent.noteRefusal(reason, performance.now());
		this.#log.info(line, "request");
	}

	/**
	 * The lines that fail2ban reads, one for each wrong key that its address had
	 * not shown before: a client that goes on with an old key is told of in its
	 * requests' lines, and is nobody to ban. The two leading keys are fixed and come
	 * first, so that nothing a client sends can look like one; it is written
	 * whatever the log's level is.
	 */
	enterAuthFailure(
		address: string,
		requestId: string | undefined,
		{ fresh, lockedOut }: Failure,
	): void {
		this.authFailures += 1;
		const reqId = requestId === undefined ? null : `"${requestId}"`;
		const line = `{"event":"auth_failed","ip":"${address}","level":"warn","time":"${isoTime(Date.now())}","reqId":${reqId},"lockedOut":${lockedOut},"msg":"wrong key"}\n`;
		for (let key = 0; key < fresh; key += 1) this.#sink.write(line);
	}

	/** A fault of the gate's own; its request has ended all the same. */
	enterFault(error: unknown, requestId: string): void {
		this.#log.error(
			{ err: error, reqId: requestId },
			"a step at a request's end failed",
		);
	}

	/** A key that was laid out to be found has been found. */
	enterCanaryUse(
		key: string,
		address: string,
		requestId: string | undefined,
	): void {
		this.canaryUses += 1;
		this.#log.error(
			{ event: "canary_used", key, ip: address, reqId: requestId ?? null },
			"a canary key was used: anyone who has it has been where it was kept",
		);
	}

	#count(
		key: string,
		route: string,
		exchange: Exchange,
		outcome: Outcome,
		durationMs: number,
	): void {
		const tally = this.#tallyOf(key, route, exchange.status, outcome);
		tally.requests += 1;
		tally.bytesIn += exchange.bytesIn;
		tally.bytesOut += exchange.bytesOut;
		tally.tokensIn += exchange.usage?.tokensIn ?? 0;
		tally.tokensCached += exchange.usage?.tokensCached ?? 0;
		tally.tokensOut += exchange.usage?.tokensOut ?? 0;
		tally.durationMs += durationMs;
	}

	#tallyOf(
		key: string,
		route: string,
		status: number,
		outcome: Outcome,
	): RequestMetrics {
		const latest = this.#latest;
		if (
			latest !== undefined &&
			latest.status === status &&
			latest.outcome === outcome &&
			latest.key === key &&
			latest.route === route
		)
			return latest;
		const id = `${key}\n${route}\n${status}\n${outcome}`;
		let tally = this.tallies.get(id);
		if (tally === undefined) {
			tally = {
				key,
				route,
				status,
				outcome,
				requests: 0,
				durationMs: 0,
				bytesIn: 0,
				bytesOut: 0,
				tokensIn: 0,
				tokensCached: 0,
				tokensOut: 0,
			};
			this.tallies.set(id, tally);
		}
		this.#latest = tally;
		return tally;
	}
}

/** The key's name; a login's is a person's, and is in no line and no counter. */
function labelOf({ credential }: Exchange): string | null {
	return credential?.key.label ?? credential?.key.name ?? null;
}

/** A request's line, as pino writes its own; pino takes three times as long to put it together. */
function requestLine(
	exchange: Exchange,
	outcome: Outcome,
	level: "info" | "warn",
	durationMs: number,
	{ people, hidesOwners }: AccessLog,
): string {
	const { usage, node, queueMs, ttftMs } = exchange;
	let line = `{"level":"${level}","time":"${isoTime(Date.now())}","key":${quote(labelOf(exchange))},"node":${quote(node?.name || null)},"route":${quote(exchange.route?.id)},"model":${quote(usage?.model)},"status":${exchange.status},"ttftMs":${ttftMs === undefined ? "null" : tenths(ttftMs)},"durationMs":${tenths(durationMs)},"bytesIn":${exchange.bytesIn},"bytesOut":${exchange.bytesOut},"tokensIn":${usage?.tokensIn ?? "null"},"tokensCached":${usage?.tokensCached ?? "null"},"tokensOut":${usage?.tokensOut ?? "null"},"outcome":"${outcome}","reqId":"${exchange.id}","ip":"${exchange.connection.address}"`;
	if (queueMs !== undefined) line += `,"queueMs":${tenths(queueMs)}`;
	if (exchange.upstream !== undefined)
		line += `,"upstream":"${exchange.upstream}"`;
	if (exchange.reason !== undefined)
		line += `,"reason":${quote(exchange.reason)}`;
	if (exchange.wrongPath !== undefined)
		line += `,"path":${quote(exchange.wrongPath)}`;
	if (node !== undefined && !hidesOwners) line += `,"user":${quote(node.user)}`;
	if (node !== undefined) line += `,"tags":${JSON.stringify(node.tags)}`;
	if (exchange.grants !== undefined)
		line += `,"grants":${JSON.stringify(exchange.grants)}`;
	if (exchange.identityFault !== undefined)
		line += `,"identity":${quote(exchange.identityFault)}`;
	if (exchange.credential !== undefined) line += whose(exchange, people);
	return `${line},"msg":"request"}\n`;
}

/** A text as JSON has it. */
function quote(text: string | null | undefined): string {
	return text === undefined || text === null ? "null" : JSON.stringify(text);
}

/** A time to a tenth of a millisecond; put together of two integers, which V8 writes sooner than one fraction. */
function tenths(milliseconds: number): string {
	const all = Math.round(milliseconds * 10);
	const whole = Math.floor(all / 10);
	const rest = all - 10 * whole;
	return rest === 0 ? `${whole}` : `${whole}.${rest}`;
}

/** By what its user is known, and who it is as far as the owner wants that written down. */
function whose(exchange: Exchange, people: Settings["logPeople"]): string {
	const person = shownPerson(exchange, people);
	const by = `,"userBy":"${exchange.person?.by ?? "key"}"`;
	return person === undefined ? by : `${by},"person":${quote(person)}`;
}

let latestMs = 0;
let latestTime = "";

/** Made once for each millisecond. */
function isoTime(epochMs: number): string {
	if (epochMs !== latestMs) {
		latestMs = epochMs;
		latestTime = new Date(epochMs).toISOString();
	}
	return latestTime;
}

import type { FastifyRateLimitStore } from "@fastify/rate-limit";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Settings } from "../config/load.ts";
import type { Key } from "../keys/keyring.ts";
import { checkBody } from "./bodyLimit.ts";
import type { Exchange } from "./exchange.ts";
import type { Refusal } from "./refusal.ts";

export const minuteMs = 60_000;

/** What a rate limiter found, as @fastify/rate-limit's `createRateLimit` returns it. */
export interface Count {
	readonly max: number;
	readonly remaining: number;
	readonly ttlInSeconds: number;
	readonly isExceeded: boolean;
}

/** Beyond so many keys or addresses the one whose minute began first is forgotten. */
const maxWindows = 20_000;

/**
 * Where @fastify/rate-limit counts. Its own store goes by the wall clock: set
 * back by an hour, a minute's limit would hold for that hour.
 */
export class WindowStore implements FastifyRateLimitStore {
	/** In the order in which they began. */
	readonly #windows = new Map<string, { count: number; endsAtMs: number }>();

	incr(
		key: string,
		callback: (
			error: Error | null,
			result?: { current: number; ttl: number },
		) => void,
		windowMs: number,
	): void {
		const nowMs = performance.now();
		let window = this.#windows.get(key);
		if (window === undefined || window.endsAtMs <= nowMs) {
			this.#windows.delete(key);
			const [oldest] = this.#windows.keys();
			if (this.#windows.size >= maxWindows && oldest !== undefined)
				this.#windows.delete(oldest);
			window = { count: 0, endsAtMs: nowMs + windowMs };
			this.#windows.set(key, window);
		}
		window.count += 1;
		callback(null, {
			current: window.count,
			ttl: Math.min(windowMs, window.endsAtMs - nowMs),
		});
	}

	child(): WindowStore {
		return new WindowStore();
	}
}

/**
 * Step 6: requests a minute per key and per source, streams at once per key,
 * and the body's size. Needs @fastify/rate-limit with a `WindowStore` on the instance.
 *
 * @param settingsNow the settings in force, asked for each request
 * @param exchangeOf the request's exchange, which has a credential by now
 */
export function createLimits(
	app: FastifyInstance,
	settingsNow: () => Settings,
	exchangeOf: (request: FastifyRequest) => Exchange,
): { check(request: FastifyRequest): Promise<Refusal | undefined> } {
	const perKey = app.createRateLimit({
		timeWindow: minuteMs,
		keyGenerator: (request) => keyOf(exchangeOf(request)).name,
		max: (request) => ratesOf(exchangeOf(request), settingsNow()).key,
	});
	const perSource = app.createRateLimit({
		timeWindow: minuteMs,
		keyGenerator: (request) => exchangeOf(request).connection.address,
		max: (request) => ratesOf(exchangeOf(request), settingsNow()).source,
	});
	const taken = new Map<string, number>();

	return {
		async check(request) {
			const exchange = exchangeOf(request);
			const [keyCount, sourceCount] = await Promise.all([
				perKey(request),
				perSource(request),
			]);
			return (
				judgeRates(exchange, counted(keyCount), counted(sourceCount)) ??
				checkBody(exchange, settingsNow()) ??
				takeSlot(exchange, settingsNow(), taken)
			);
		},
	};
}

/** Tells the client what is left of its rates, and refuses what is beyond them. */
export function judgeRates(
	exchange: Exchange,
	byKey: Count,
	bySource: Count,
): Refusal | undefined {
	const tightest =
		byKey.isExceeded ||
		(!bySource.isExceeded && byKey.remaining <= bySource.remaining)
			? byKey
			: bySource;
	exchange.replyHeaders.push(
		"ratelimit-limit",
		String(tightest.max),
		"ratelimit-remaining",
		String(tightest.remaining),
		"ratelimit-reset",
		String(tightest.ttlInSeconds),
	);
	if (!tightest.isExceeded) return undefined;
	const whose =
		tightest === byKey ? `the key "${keyOf(exchange).name}"` : "this address";
	return tooMany(
		"rate",
		`${whose} may make ${count(tightest.max, "request")} a minute`,
		tightest.ttlInSeconds,
	);
}

/** How many requests a minute a request's key and its address may make. */
export function ratesOf(
	exchange: Exchange,
	{ limits }: Settings,
): { readonly key: number; readonly source: number } {
	return {
		key:
			keyOf(exchange).limits.requestsPerMinute ??
			limits.perKey.requestsPerMinute,
		source: limits.perSource.requestsPerMinute,
	};
}

/** The key step has run, or the request would not be here; if not, it goes no further. */
function keyOf(exchange: Exchange): Key {
	if (exchange.credential === undefined)
		throw new Error("a request without a credential reached the limits");
	return exchange.credential.key;
}

/** The gate allow-lists nobody, so an answer without a count is a fault, and a fault refuses. */
function counted(answer: Count | { isAllowed: true }): Count {
	if (!("isExceeded" in answer))
		throw new Error("the rate limiter did not count");
	return answer;
}

/** "1 request", "2 requests". */
function count(number: number, noun: string): string {
	return `${number} ${noun}${number === 1 ? "" : "s"}`;
}

function tooMany(
	reason: string,
	message: string,
	retryAfterSeconds: number,
): Refusal {
	return {
		status: 429,
		reason,
		message,
		headers: ["retry-after", String(Math.max(1, retryAfterSeconds))],
	};
}

/**
 * Takes one of the key's slots until the request's end. What only reads has
 * slots of its own, as many: a list can be had while every stream is taken,
 * and yet no key can fill Ollama with reading.
 */
function takeSlot(
	exchange: Exchange,
	settings: Settings,
	taken: Map<string, number>,
): Refusal | undefined {
	if (exchange.ended) return undefined;
	const { slots, max } = slotsOf(exchange, settings);
	const inUse = taken.get(slots) ?? 0;
	if (inUse >= max) return noSlot(exchange, max);
	taken.set(slots, inUse + 1);
	exchange.atEnd(() => {
		const left = (taken.get(slots) ?? 1) - 1;
		if (left > 0) taken.set(slots, left);
		else taken.delete(slots);
	});
	return undefined;
}

/** The name of the slots that a request takes one of, and how many there are. */
export function slotsOf(
	exchange: Exchange,
	settings: Settings,
): { readonly slots: string; readonly max: number } {
	const { name, limits } = keyOf(exchange);
	return {
		slots: exchange.route?.scope === "read" ? `${name} reading` : name,
		max: limits.concurrent ?? settings.limits.perKey.concurrent,
	};
}

export function noSlot(exchange: Exchange, max: number): Refusal {
	return tooMany(
		"concurrent",
		`the key "${keyOf(exchange).name}" may have ${count(max, "request")} at work at once`,
		1,
	);
}

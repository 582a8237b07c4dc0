import type {} from "@fastify/rate-limit";
import type { FastifyInstance, FastifyRequest } from "fastify";
import type { Settings } from "../config/load.ts";
import type { Key } from "../keys/keyring.ts";
import { smallBodyBytes } from "../ollama/routes.ts";
import type { Exchange } from "./account.ts";
import type { Refusal } from "./refusal.ts";
import { bodyLengthOf, bodyLimitOf } from "./route.ts";

const minuteMs = 60_000;

/** What a rate limiter found, as @fastify/rate-limit's `createRateLimit` returns it. */
interface Count {
	readonly max: number;
	readonly remaining: number;
	readonly ttlInSeconds: number;
	readonly isExceeded: boolean;
}

/**
 * Step 6: requests a minute per key and per source, streams at once per key,
 * and the body's size. Needs @fastify/rate-limit on the instance.
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
		max: (request) =>
			keyOf(exchangeOf(request)).limits.requestsPerMinute ??
			settingsNow().limits.perKey.requestsPerMinute,
	});
	const perSource = app.createRateLimit({
		timeWindow: minuteMs,
		keyGenerator: (request) => exchangeOf(request).connection.address,
		max: () => settingsNow().limits.perSource.requestsPerMinute,
	});
	const working = new Map<string, number>();

	return {
		async check(request) {
			const exchange = exchangeOf(request);
			const byKey = counted(await perKey(request));
			const bySource = counted(await perSource(request));
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
			if (tightest.isExceeded) {
				const whose =
					tightest === byKey
						? `the key "${keyOf(exchange).name}"`
						: "this address";
				return tooMany(
					"rate",
					`${whose} may make ${tightest.max} requests a minute`,
					tightest.ttlInSeconds,
				);
			}
			return (
				checkBody(exchange, settingsNow()) ??
				takeStream(exchange, settingsNow(), working)
			);
		},
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

function checkBody(
	exchange: Exchange,
	settings: Settings,
): Refusal | undefined {
	if (exchange.route === undefined) return undefined;
	const limit = bodyLimitOf(
		exchange.route,
		settings.limits.bodyBytes,
		smallBodyBytes,
	);
	const length = bodyLengthOf(exchange.head);
	// A chunked body has no length yet; the relay counts it.
	return Number.isFinite(length) && length > limit
		? bodyTooLarge(limit)
		: undefined;
}

/** The refusal of a body that is too large, found early or late. */
export function bodyTooLarge(limitBytes: number): Refusal {
	return {
		status: 413,
		reason: "body_too_large",
		message: `the body may have at most ${limitBytes} bytes`,
	};
}

/** Reading lists takes no slot; what makes Ollama work does, until its end. */
function takeStream(
	exchange: Exchange,
	settings: Settings,
	working: Map<string, number>,
): Refusal | undefined {
	if (exchange.ended || exchange.route?.scope === "read") return undefined;
	const { name, limits } = keyOf(exchange);
	const max = limits.concurrent ?? settings.limits.perKey.concurrent;
	const count = working.get(name) ?? 0;
	if (count >= max)
		return tooMany(
			"concurrent",
			`the key "${name}" may have ${max} requests at work at once`,
			1,
		);
	working.set(name, count + 1);
	exchange.atEnd(() => {
		const left = (working.get(name) ?? 1) - 1;
		if (left > 0) working.set(name, left);
		else working.delete(name);
	});
	return undefined;
}

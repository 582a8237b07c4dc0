import { cutOff } from "./connection.ts";
import type { Exchange } from "./exchange.ts";
import { Pacer } from "./pacer.ts";
import { leaveBody, type Refusal, sendRefusal } from "./refusal.ts";

/** Refusals that an address, or a key, gets at once before it has to wait for the next. */
const burst = 1_000;
/** Refusals a second that it gets from then on. */
const perSecond = 200;
/**
 * The longest that a refusal is held back. Every connection without a key that
 * one address may have (connection.ts) has its turn by then.
 */
const longestWaitMs = 6_000;
const pace = { burst, perSecond, longestWaitMs };

/**
 * Holds back the refusals of an address that collects very many, and of a key,
 * so that a flood of bad requests costs the running streams no more than a small
 * share of the core: who has a request waiting sends none meanwhile. What is
 * allowed never waits.
 */
export class RefusalThrottle {
	readonly #pacer = new Pacer(() => pace);

	/**
	 * How long the next refusal waits; 0 for at once, `undefined` if so many wait
	 * already that it is not to be answered at all.
	 *
	 * @param who an address, or a key's label
	 * @param nowMs any clock that only moves forward
	 */
	take(who: string, nowMs: number): number | undefined {
		return this.#pacer.take(who, nowMs);
	}

	/** Sends a refusal, in its turn. */
	refuse(exchange: Exchange, refusal: Refusal): void {
		this.answer(exchange, () => sendRefusal(exchange, refusal));
	}

	/** Answers what goes no further, in its turn. */
	answer(exchange: Exchange, answer: () => void): void {
		const { connection } = exchange;
		const waitMs = this.take(
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

	/** Forgets those that have been quiet for long enough to have their burst back. */
	sweep(nowMs: number): void {
		this.#pacer.sweep(nowMs);
	}
}

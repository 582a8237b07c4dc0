import type { Reservation } from "../../ledger/budgets.ts";
import { pairedAddress } from "../../net/ranges.ts";
import type { Answer } from "../../valkey/connection.ts";
import { admit } from "../../valkey/scripts.ts";
import { checkBody } from "../bodyLimit.ts";
import { reserveAll } from "../budget.ts";
import type { Exchange } from "../exchange.ts";
import {
	judgeRates,
	minuteMs,
	noSlot,
	ratesOf,
	slotsOf,
} from "../rateLimit.ts";
import type { Refusal } from "../refusal.ts";
import type { GateState } from "../state.ts";
import { placeAmongGates } from "./places.ts";
import { countOf } from "./rates.ts";
import type { Shared } from "./shared.ts";
import { slotsKeptMs } from "./slots.ts";

/** What a request asks for in the one step that Valkey takes for it. */
interface Wish {
	readonly key: string;
	readonly source: string;
	readonly rates: { readonly key: number; readonly source: number };
	readonly slots: string;
	readonly max: number;
	/** How many slots this gate has with this request's; 0 where it is not to have one. */
	readonly own: number;
	/** Its parts of its key's budgets, if it is one of those that a budget counts. */
	readonly reservations: readonly Reservation[];
}

/** What came of it. */
interface Grant {
	readonly lockedOutMs: number;
	readonly key: { readonly count: number; readonly restMs: number };
	readonly source: { readonly count: number; readonly restMs: number };
	readonly hasSlot: boolean;
}

/**
 * Step 6 where gates share their limits: what `createLimits` of rateLimit.ts checks,
 * counted for all of them in one step, and with Valkey away by this gate's part.
 */
export function createSharedLimits(
	state: GateState,
	shared: Shared,
): { check(exchange: Exchange): Promise<Refusal | undefined> } {
	return {
		async check(exchange) {
			const { settings } = state;
			const { slots, max } = slotsOf(exchange, settings);
			const tooLarge = checkBody(exchange, settings);
			const isFull = shared.slots.inUse(slots) >= max;
			const wantsSlot = tooLarge === undefined && !isFull;
			const wish: Wish = {
				key: exchange.knownCredential.key.name,
				source: placeAmongGates(pairedAddress(exchange.connection.address)),
				rates: ratesOf(exchange, settings),
				slots,
				max,
				own: wantsSlot ? shared.slots.claim(slots) : 0,
				reservations: wantsSlot ? reserve(state, exchange) : [],
			};
			const grant = (await askFor(shared, wish)) ?? aloneOf(shared, wish);
			if (grant.hasSlot && !exchange.ended)
				exchange.reservations = wish.reservations;
			else
				for (const reservation of wish.reservations)
					reservation.settle(nothing, Date.now());
			// An end that has come meanwhile gives it back at once.
			if (wantsSlot && grant.hasSlot)
				exchange.atEnd(() => shared.slots.giveBack(slots));
			else if (wantsSlot) shared.slots.giveBack(slots);
			if (grant.lockedOutMs > 0) return lockOut(state, exchange, grant);
			return (
				judgeRates(
					exchange,
					countOf(wish.rates.key, grant.key),
					countOf(wish.rates.source, grant.source),
				) ??
				tooLarge ??
				(grant.hasSlot ? undefined : noSlot(exchange, max))
			);
		},
	};
}

const nothing = { gpuMs: 0, tokens: 0, requests: 0 };

function reserve(
	{ budgets }: GateState,
	{ knownCredential, route }: Exchange,
): Reservation[] {
	return route?.scope === "infer"
		? reserveAll(budgets, knownCredential.key.charges, Date.now())
		: [];
}

/** Asks Valkey; `undefined` where it is away. */
async function askFor(shared: Shared, wish: Wish): Promise<Grant | undefined> {
	const { names, rates } = shared;
	const { key, source, slots, own, max } = wish;
	const [ofKey, ofSource] = [`key ${key}`, `source ${source}`];
	const sentAtMs = performance.now();
	const [keyFloor, sourceFloor] = [
		rates.floorOf(ofKey, sentAtMs),
		rates.floorOf(ofSource, sentAtMs),
	];
	const slotsKey = names.of("slots", slots);
	const { reservations } = wish;
	const uses = reservations.map(({ account, own }) =>
		shared.budgets.entryOf(account, own),
	);
	const answer = await shared.ask(
		admit,
		[
			names.of("rate", ofKey),
			names.of("rate", ofSource),
			slotsKey,
			names.one("gates"),
			names.one("locks"),
			...uses.map((use) => use.key),
		],
		[
			shared.id,
			names.hash(source),
			minuteMs,
			wish.rates.key,
			keyFloor.floor,
			keyFloor.restMs,
			wish.rates.source,
			sourceFloor.floor,
			sourceFloor.restMs,
			own,
			max,
			slotsKeptMs,
			...uses.flatMap(({ value, keptMs }) => [value, keptMs]),
		],
	);
	const numbers = readAnswer(answer);
	if (numbers === undefined) return undefined;
	const [lockedOutMs, keyCount, keyRest, sourceCount, sourceRest, slot] =
		numbers;
	const nowMs = performance.now();
	const grant: Grant = {
		// Valkey's clock may have been set back since.
		lockedOutMs: Math.min(lockedOutMs, shared.lockoutMs),
		key: { count: keyCount, restMs: keyRest },
		source: { count: sourceCount, restMs: sourceRest },
		hasSlot: slot === 1,
	};
	if (lockedOutMs > 0) return grant;
	rates.told(ofKey, grant.key.count, grant.key.restMs, nowMs);
	rates.told(ofSource, grant.source.count, grant.source.restMs, nowMs);
	if (grant.hasSlot) shared.slots.written(slots, own);
	for (const [index, reservation] of reservations.entries()) {
		const sums = numbers.slice(6 * (index + 1), 6 * (index + 2));
		if (sums.length === 6) shared.budgets.told(reservation, sums);
	}
	return grant;
}

type SixNumbers = [number, number, number, number, number, number];

/**
 * The numbers of an answer; `undefined` where there is none, and where it is none
 * of the script's: a limit that is held beside no number would let everything through.
 */
export function readAnswer(
	answer: Answer,
): [...SixNumbers, ...number[]] | undefined {
	const numbers = answer?.map((one) =>
		typeof one === "string" && one !== "" ? Number(one) : one,
	);
	return numbers !== undefined &&
		// Six more for each budget, of which a key has two at the most.
		[6, 12, 18].includes(numbers.length) &&
		numbers.every((one) => Number.isFinite(one))
		? (numbers as [...SixNumbers, ...number[]])
		: undefined;
}

/** What this gate decides by itself: its part of what is left. */
function aloneOf({ rates, gates }: Shared, wish: Wish): Grant {
	const nowMs = performance.now();
	return {
		lockedOutMs: 0,
		key: rates.countAlone(`key ${wish.key}`, gates, minuteMs, nowMs),
		source: rates.countAlone(`source ${wish.source}`, gates, minuteMs, nowMs),
		hasSlot: wish.own > 0 && (wish.own - 1) * gates + 1 <= wish.max,
	};
}

/** Another gate has locked the address out, and this one has not heard of it until now. */
function lockOut(
	{ lockout }: GateState,
	{ connection: { address } }: Exchange,
	{ lockedOutMs }: Grant,
): Refusal | undefined {
	const nowMs = performance.now();
	lockout.lock(address, nowMs + lockedOutMs, nowMs);
	return lockout.check(address, nowMs);
}

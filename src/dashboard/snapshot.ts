import { type AskedLive, askLiveOn } from "../admin/live.ts";
import { type RateOf, Rates } from "../admin/rates.ts";
import type { Settings } from "../config/load.ts";
import { type LastResult, readLastResult } from "../doctor/lastResult.ts";
import { type Usage, UsageWatch } from "./usage.ts";

/** A look is work for the gate. */
const defaultFreshMs = 1_000;
const doctorFreshMs = 30_000;
/** Between looks that are further apart nothing is known. */
const maxGapMs = 5_000;

/** What the page shows, at one moment. */
export interface Snapshot {
	/** Epoch milliseconds. */
	readonly atMs: number;
	readonly gate: AskedLive;
	readonly rateOf: RateOf;
	/** Of all that runs; `undefined` where it is not known. */
	readonly tokensPerSecond: number | undefined;
	readonly usage: Usage;
	readonly doctor: LastResult;
}

/** Where the page's figures come from. */
export interface Sources {
	readonly adminSocket: string;
	readonly ledgerSocket: string | undefined;
	readonly people: Settings["logPeople"];
	/** Doctor's last result; the usual one if it is not given. */
	readonly doctorFile?: string;
	/** How old an answer of the gate may be; a second if it is not given. */
	readonly freshMs?: number;
}

/** Looks at the gate, the ledger and doctor's last result, once for all who want to know. */
export class Watch {
	readonly #sources: Sources;
	readonly #rates = new Rates();
	#snapshot: Snapshot | undefined;
	/** By a clock that nobody sets, or one that was put back would keep an old look. */
	#lookedAtMs = Number.NEGATIVE_INFINITY;
	#looking: Promise<Snapshot> | undefined;
	#pieces:
		| { readonly count: number; readonly atMs: number; readonly of: string }
		| undefined;
	readonly #usage: UsageWatch;
	readonly #doctor: () => Promise<LastResult>;

	constructor(sources: Sources) {
		this.#sources = sources;
		this.#usage = new UsageWatch(sources);
		this.#doctor = remembered(doctorFreshMs, () =>
			readLastResult(sources.doctorFile),
		);
	}

	/** How it is now, or was less than `freshMs` ago. However many ask, there is one look at a time. */
	look(): Promise<Snapshot> {
		const last = this.#snapshot;
		const { freshMs = defaultFreshMs } = this.#sources;
		if (last !== undefined && performance.now() - this.#lookedAtMs < freshMs)
			return Promise.resolve(last);
		this.#looking ??= this.#look().finally(() => {
			this.#looking = undefined;
		});
		return this.#looking;
	}

	async #look(): Promise<Snapshot> {
		const [gate, usage, doctor] = await Promise.all([
			askLiveOn(this.#sources.adminSocket),
			this.#usage.look(),
			this.#doctor(),
		]);
		const rateOf: RateOf =
			gate.kind === "live" ? this.#rates.of(gate.live.top) : () => undefined;
		const snapshot = {
			atMs: Date.now(),
			gate,
			rateOf,
			tokensPerSecond: this.#speedOf(gate, rateOf),
			usage,
			doctor,
		};
		this.#snapshot = snapshot;
		this.#lookedAtMs = performance.now();
		return snapshot;
	}

	/** From look to look; at the first one what runs tells its own. */
	#speedOf(gate: AskedLive, rateOf: RateOf): number | undefined {
		const before = this.#pieces;
		if (gate.kind !== "live") {
			this.#pieces = undefined;
			return undefined;
		}
		const { pieces, startedAt, top } = gate.live;
		const now = { count: pieces, atMs: performance.now(), of: startedAt };
		this.#pieces = now;
		const overMs = now.atMs - (before?.atMs ?? Number.NEGATIVE_INFINITY);
		if (before?.of === startedAt && overMs > 0 && overMs < maxGapMs)
			return (Math.max(0, pieces - before.count) * 1000) / overMs;
		return top.requests.reduce((sum, row) => sum + (rateOf(row) ?? 0), 0);
	}
}

/** Asks again when the last answer is older than that; who asks meanwhile waits for the same one. */
function remembered<T>(
	maxAgeMs: number,
	ask: () => Promise<T>,
): () => Promise<T> {
	let askedAtMs = Number.NEGATIVE_INFINITY;
	let answer: Promise<T> | undefined;
	return () => {
		const nowMs = performance.now();
		if (answer === undefined || nowMs - askedAtMs >= maxAgeMs) {
			askedAtMs = nowMs;
			answer = ask();
		}
		return answer;
	};
}

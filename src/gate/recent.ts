import type { FirstTokens, RefusalCount } from "../admin/live.ts";
import type { Exchange, Outcome } from "./exchange.ts";

const minuteMs = 60_000;
/** For so many minutes refusals are counted. */
const keptMinutes = 10;
/** First tokens that are remembered: on a busy gate those of less than ten minutes. */
const maxSamples = 2_048;
/** Reasons are the gate's own words; this is for the day on which one is not. */
const maxReasons = 64;

/** The last minutes, for who watches. What it takes does not grow with the requests. */
export class RecentRequests {
	/** Pieces of the replies of inference that have ended. */
	pieces = 0;
	/** Times of ends and first tokens, in turn; the oldest is overwritten. */
	readonly #samples = new Float64Array(maxSamples * 2);
	#sampleCount = 0;
	/** Counts by minute, the newest last. */
	#minutes: {
		readonly minute: number;
		readonly counts: Map<string, number>;
	}[] = [];

	/** Takes note of a request that has ended. @param nowMs `performance.now()`, as everywhere here */
	note(exchange: Exchange, outcome: Outcome, nowMs: number): void {
		if (outcome === "refused") this.noteRefusal(exchange.reason, nowMs);
		if (exchange.route?.scope !== "infer") return;
		const { piecesOut, ttftMs } = exchange;
		this.pieces += piecesOut;
		// A reply in one piece has no first token to speak of.
		if (ttftMs === undefined || piecesOut < 2 || exchange.status !== 200)
			return;
		const at = (this.#sampleCount % maxSamples) * 2;
		this.#samples[at] = nowMs;
		this.#samples[at + 1] = ttftMs;
		this.#sampleCount += 1;
	}

	/** Takes note of a refusal, also of bytes that were no request. */
	noteRefusal(reason: string | undefined, nowMs: number): void {
		const minute = Math.floor(nowMs / minuteMs);
		let last = this.#minutes.at(-1);
		if (last?.minute !== minute) {
			last = { minute, counts: new Map() };
			this.#minutes.push(last);
			if (this.#minutes.length > keptMinutes) this.#minutes.shift();
		}
		const { counts } = last;
		const known = reason ?? "unknown";
		const name =
			counts.has(known) || counts.size < maxReasons ? known : "other";
		counts.set(name, (counts.get(name) ?? 0) + 1);
	}

	/** Of the requests that ended in so many milliseconds. */
	firstTokens(overMs: number, nowMs: number): FirstTokens {
		const times: number[] = [];
		const held = Math.min(this.#sampleCount, maxSamples);
		for (let at = 0; at < held * 2; at += 2)
			if ((this.#samples[at] ?? 0) >= nowMs - overMs)
				times.push(this.#samples[at + 1] ?? 0);
		times.sort((a, b) => a - b);
		const atRank = (part: number) => {
			const time = times[Math.max(0, Math.ceil(times.length * part) - 1)];
			return time === undefined ? null : Math.round(time);
		};
		return { count: times.length, medianMs: atRank(0.5), p95Ms: atRank(0.95) };
	}

	/** Of this minute and the nine before it, the most frequent first. */
	refusals(nowMs: number): RefusalCount[] {
		const oldest = Math.floor(nowMs / minuteMs) - keptMinutes + 1;
		const sums = new Map<string, number>();
		for (const { minute, counts } of this.#minutes)
			if (minute >= oldest)
				for (const [reason, count] of counts)
					sums.set(reason, (sums.get(reason) ?? 0) + count);
		return [...sums]
			.map(([reason, count]) => ({ reason, count }))
			.sort((a, b) => b.count - a.count || a.reason.localeCompare(b.reason));
	}
}

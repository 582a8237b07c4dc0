import type { GateTop, TopRequest } from "./top.ts";

/** Over less a rate says nothing. */
const leastRateMs = 100;

/** Tokens a second of what runs, by request; `undefined` where that is not known. */
export type RateOf = (request: TopRequest) => number | undefined;

/** Counts pieces from one look to the next. */
export class Rates {
	#before = new Map<string, { pieces: number; repliesMs: number }>();

	/** Of each request since the last look, or since its reply's begin where there was none. */
	of({ requests }: GateTop): RateOf {
		const before = this.#before;
		this.#before = new Map();
		for (const { id, pieces, repliesMs } of requests)
			if (pieces !== null && repliesMs !== null)
				this.#before.set(id, { pieces, repliesMs });
		return ({ id, pieces, repliesMs }) => {
			if (pieces === null || repliesMs === null) return undefined;
			const { pieces: then, repliesMs: thenMs } = before.get(id) ?? {
				// The first of them came at the begin.
				pieces: 1,
				repliesMs: 0,
			};
			const overMs = repliesMs - thenMs;
			return overMs < leastRateMs
				? undefined
				: ((pieces - then) * 1000) / overMs;
		};
	}
}

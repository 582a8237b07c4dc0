import type { UsageRecord } from "./record.ts";

const hourMs = 3_600_000;

type Sum = { -readonly [K in keyof UsageRecord]: UsageRecord[K] };

/** Records that were put together: one for each hour, user, key, device, model, route and outcome. */
export class Aggregates {
	readonly #sums = new Map<string, Sum>();
	readonly #most: number;

	/** @param most how many there may be */
	constructor(most: number) {
		this.#most = most;
	}

	get size(): number {
		return this.#sums.size;
	}

	/** When the first of them ended that are left; `undefined` where there are none. */
	get oldestMs(): number | undefined {
		return this.#sums.values().next().value?.time;
	}

	/** Requests in all of them. */
	get requests(): number {
		let requests = 0;
		for (const sum of this.#sums.values()) requests += sum.requests;
		return requests;
	}

	/** Adds a record. Returns false where that would be one sum too many; then it is not in here. */
	add(record: UsageRecord): boolean {
		const { user, userBy, key, node, model, route, outcome } = record;
		const hour = Math.floor(record.time / hourMs);
		const id = JSON.stringify([
			hour,
			user,
			userBy,
			key,
			node,
			model,
			route,
			outcome,
		]);
		const sum = this.#sums.get(id);
		if (sum === undefined) {
			if (this.#sums.size >= this.#most) return false;
			this.#sums.set(id, { ...record });
			return true;
		}
		sum.time = Math.max(sum.time, record.time);
		sum.requests += record.requests;
		sum.tokensIn += record.tokensIn;
		sum.tokensOut += record.tokensOut;
		sum.gpuMs += record.gpuMs;
		sum.loadMs += record.loadMs;
		sum.queueMs += record.queueMs;
		return true;
	}

	/** Takes so many of them out, the oldest first. */
	take(most: number): UsageRecord[] {
		const taken: UsageRecord[] = [];
		for (const [id, sum] of this.#sums) {
			if (taken.length >= most) break;
			taken.push(sum);
			this.#sums.delete(id);
		}
		return taken;
	}
}

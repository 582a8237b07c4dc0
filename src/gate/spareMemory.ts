import { getHeapStatistics, setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** So long nothing may have been done before memory is given back: a pause is felt by no one then. */
const idleBeforeMs = 10_000;
/** What is gained by less is not worth a pause. */
const worthBytes = 8 * 2 ** 20;
/** A larger part of the time since the last look is work. */
const busyShare = 0.1;

/**
 * Gives memory back that a busy time has left behind. V8 grows its heap rather than
 * clear it up, and clears nothing up once nothing is allocated any more; but the
 * gate runs beside models that want all of a machine's memory.
 */
export class SpareMemory {
	readonly #heapBytes: () => number;
	readonly #collect: () => void;
	/** The heap when it was clear last. */
	#clearBytes: number;
	#busyAtMs: number;
	readonly #loadOfLoop: () => number;

	/**
	 * @param heapBytes what V8 has of the system for its heap
	 * @param collect clears it up, and gives back what is free
	 * @param loadOfLoop the part of the time since it was asked last that the event loop was at work
	 */
	constructor(
		nowMs: number,
		heapBytes: () => number = totalHeapBytes,
		collect: () => void = collectGarbage,
		loadOfLoop: () => number = watchLoop(),
	) {
		this.#heapBytes = heapBytes;
		this.#collect = collect;
		this.#loadOfLoop = loadOfLoop;
		this.#busyAtMs = nowMs;
		this.#clearBytes = heapBytes();
	}

	/** Looks after time: called at a fixed interval. @param hasStreams that would feel a pause */
	sweep(nowMs: number, hasStreams: boolean): void {
		const load = this.#loadOfLoop();
		if (hasStreams || load > busyShare) this.#busyAtMs = nowMs;
		if (nowMs - this.#busyAtMs < idleBeforeMs) return;
		if (this.#heapBytes() < this.#clearBytes + worthBytes) return;
		this.#collect();
		this.#clearBytes = this.#heapBytes();
	}
}

function totalHeapBytes(): number {
	return getHeapStatistics().total_heap_size;
}

function watchLoop(): () => number {
	let last = performance.eventLoopUtilization();
	return () => {
		const now = performance.eventLoopUtilization();
		const { utilization } = performance.eventLoopUtilization(now, last);
		last = now;
		return utilization;
	};
}

let gc: NodeJS.GCFunction | undefined;

/** Clears V8's heap up at once, and gives back what is free. It takes some ten milliseconds. */
export function collectGarbage(): void {
	// Only a context that is made behind the flag has the function.
	setFlagsFromString("--expose-gc");
	gc ??= runInNewContext("globalThis.gc") as NodeJS.GCFunction | undefined;
	setFlagsFromString("--no-expose-gc");
	// A V8 without it keeps what it has, which is no reason to end.
	gc?.({ type: "major", execution: "sync", flavor: "last-resort" });
}

import type { Priority } from "../../src/priority.ts";
import { Turns } from "../../src/queue/turns.ts";
import type { Clock } from "./clock.ts";
import type { Gpu } from "./gpu.ts";

/** A request of a trace. */
export interface Request {
	readonly user: string;
	readonly share: number;
	readonly priority: Priority;
	readonly model: string;
	/** How long it takes once it has a slot. */
	readonly serviceMs: number;
	/** Its first byte comes. */
	began(): void;
	ended(): void;
}

/** Who decides when a request reaches Ollama. */
export interface Policy {
	arrived(request: Request): void;
}

/** `queue.maxWait` as it comes. */
const maxWaitMs = {
	interactive: 2 * 60_000,
	normal: 10 * 60_000,
	batch: 6 * 3_600_000,
} as const;

/** No queue: Ollama gets all of it at once and decides itself. */
function ollama(_: Clock, gpu: Gpu): Policy {
	return { arrived: (request) => gpu.send(request) };
}

/** One queue for all, strictly in the order of arrival. */
function fifo(_: Clock, gpu: Gpu): Policy {
	const waiting = new Set<Request>();
	let models: ReadonlySet<string> = new Set();
	gpu.onLoaded = (loaded) => {
		models = loaded;
	};
	const pump = () => {
		for (const first of waiting) {
			// One that needs a load is sent, and all others wait until it begins.
			if (gpu.isLoading) break;
			if (models.has(first.model) && !gpu.isFree(first.model)) break;
			waiting.delete(first);
			gpu.send({
				...first,
				began() {
					first.began();
					pump();
				},
				ended() {
					first.ended();
					pump();
				},
			});
		}
	};
	return {
		arrived(request) {
			waiting.add(request);
			pump();
		},
	};
}

/** The gate's queue, told of everything in the moment that it happens. */
function fair(
	turnFactor: number,
	learns = false,
): (clock: Clock, gpu: Gpu) => Policy {
	return (clock, gpu) => {
		const parallel = learns ? "auto" : gpu.parallel;
		const turns = new Turns({ parallel, maxWaitMs, turnFactor });
		const requests = new Map<object, Request>();
		let wakeMs = Number.POSITIVE_INFINITY;
		const pump = () => {
			turns.tick(clock.nowMs);
			for (;;) {
				const place = turns.next(clock.nowMs);
				if (place === undefined) break;
				const request = requests.get(place);
				if (request === undefined) throw new Error("nobody has that place");
				requests.delete(place);
				gpu.send({
					...request,
					began() {
						turns.firstByte(place, clock.nowMs);
						request.began();
						pump();
					},
					ended() {
						turns.worked(place, clock.nowMs);
						turns.finished(place, clock.nowMs);
						request.ended();
						pump();
					},
				});
			}
			if (turns.wakeMs >= wakeMs) return;
			const atMs = turns.wakeMs;
			wakeMs = atMs;
			clock.after(atMs - clock.nowMs, () => {
				if (wakeMs === atMs) wakeMs = Number.POSITIVE_INFINITY;
				pump();
			});
		};
		gpu.onLoaded = (models) => turns.loaded(models, clock.nowMs);
		return {
			arrived(request) {
				requests.set(
					turns.arrived({ ...request, isStream: true }, clock.nowMs),
					request,
				);
				pump();
			},
		};
	};
}

/** By name; `fair` swaps as soon as the least served wants it, with turns after eight times a load. */
export const policies = {
	ollama,
	fifo,
	fair: fair(0),
	"fair with turns": fair(8),
	"the same, slots learnt": fair(8, true),
} as const satisfies Record<string, (clock: Clock, gpu: Gpu) => Policy>;

export type PolicyName = keyof typeof policies;

import type { QueuedModel, QueueStatus } from "../admin/status.ts";
import { type Priority, priorities } from "../priority.ts";
import type { Model } from "./model.ts";
import type { ModelSource } from "./ollamaModels.ts";

/** What has happened since the start. */
export interface QueueCounts {
	dispatched: number;
	left: number;
	refused: number;
	loads: number;
	waitedMs: number;
	/** Requests that asked for a higher class than their key's. */
	ignoredPriorities: number;
}

export const nothingCounted = (): QueueCounts => ({
	...{ dispatched: 0, left: 0, refused: 0, loads: 0 },
	...{ waitedMs: 0, ignoredPriorities: 0 },
});

/** What the queue looks like from outside. */
export interface QueueStats extends QueueStatus, Readonly<QueueCounts> {
	readonly models: readonly QueueModel[];
}

export interface QueueModel extends QueuedModel {
	/** How long a load of it took; 0 if none was seen. */
	readonly loadMs: number;
}

/** How many wait, by class. */
export function waitingByClass(
	models: Iterable<Model>,
): Record<Priority, number> {
	const waiting = { interactive: 0, normal: 0, batch: 0 };
	for (const { lanes } of models)
		for (const [index, { arrivals }] of lanes.entries()) {
			const priority = priorities[index];
			if (priority !== undefined) waiting[priority] += arrivals.size;
		}
	return waiting;
}

/**
 * Models that are loaded or wanted.
 *
 * @param asked what a model's key was called last
 * @param source who knows what those are called that nobody has asked for here
 */
export function describeModels(
	models: Iterable<Model>,
	asked: ReadonlyMap<string, string>,
	source: Pick<ModelSource, "nameOf">,
): QueueModel[] {
	const described: QueueModel[] = [];
	for (const model of models) {
		const { key, isIdle, isLoaded, loader, slots, running, waiting } = model;
		if (isIdle && !isLoaded) continue;
		const isLoading = loader !== undefined;
		described.push({
			name: asked.get(key) ?? source.nameOf(key) ?? "?",
			state: isLoading ? "loading" : isLoaded ? "loaded" : "not loaded",
			slots: slots.known,
			running: running.size,
			waiting,
			loadMs: Math.round(model.loadMs),
		});
	}
	return described;
}

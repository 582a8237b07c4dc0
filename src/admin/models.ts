import { parseModelName } from "../ollama/modelName.ts";
import { formatBytes } from "../report/bytes.ts";
import { formatAge } from "../report/duration.ts";
import type { GateLive, LoadedModel } from "./live.ts";
import type { QueuedModel } from "./status.ts";

/** A model that Ollama never unloads expires in centuries. */
const foreverMs = 365 * 86_400_000;

/** A model that is loaded or wanted, as people read it; what is not known is absent. */
export interface ModelRow {
	readonly name: string;
	/** Whose it is, of several hosts. */
	readonly host: string | undefined;
	readonly state: string;
	/** "5.2 GiB", and how much of it the GPU has where that is not all. */
	readonly memory: string | undefined;
	/** When Ollama unloads it if nobody asks: "in 4 min", "now", "never". */
	readonly unloads: string | undefined;
	/** Its places in the queue. */
	readonly queued: QueuedModel | undefined;
}

/** Puts together what the queue and Ollama say, on each host by itself: the queue's models first. */
export function modelRows(
	{ top, loaded }: Pick<GateLive, "top" | "loaded">,
	nowMs: number,
): ModelRow[] {
	const unseen = new Map(
		(loaded ?? []).map((model) => [placeOf(model), model]),
	);
	const queued = (top.queue?.models ?? []).map((model) => {
		const place = placeOf(model);
		const same = unseen.get(place);
		unseen.delete(place);
		return rowOf(model, model, same, nowMs);
	});
	return [
		...queued,
		...[...unseen.values()].map((model) =>
			rowOf(model, undefined, model, nowMs),
		),
	];
}

function rowOf(
	{ name, host }: { readonly name: string; readonly host?: string },
	queued: QueuedModel | undefined,
	loaded: LoadedModel | undefined,
	nowMs: number,
): ModelRow {
	return {
		name,
		host,
		state: queued?.state ?? "loaded",
		memory: loaded && memoryOf(loaded),
		unloads: loaded && expiryOf(loaded, nowMs),
		queued,
	};
}

function memoryOf({ sizeBytes, vramBytes }: LoadedModel): string | undefined {
	// Ollama does not know of every runner; on a CPU it may say so of each.
	if (sizeBytes === 0) return undefined;
	const size = formatBytes(sizeBytes);
	if (vramBytes >= sizeBytes) return size;
	return vramBytes === 0
		? `${size}, on the CPU`
		: `${size}, ${Math.round((100 * vramBytes) / sizeBytes)} % on the GPU`;
}

function expiryOf(
	{ expiresAt }: LoadedModel,
	nowMs: number,
): string | undefined {
	if (expiresAt === null) return undefined;
	const leftMs = Date.parse(expiresAt) - nowMs;
	if (leftMs > foreverMs) return "never";
	return leftMs <= 0 ? "now" : `in ${formatAge(leftMs)}`;
}

/** `qwen3`, `qwen3:latest` and `library/qwen3` are one model. */
function placeOf(model: {
	readonly name: string;
	readonly host?: string;
}): string {
	const parsed = parseModelName(model.name);
	if (parsed === undefined) return JSON.stringify([model.host, model.name]);
	const { host, namespace, model: name, tag } = parsed;
	return JSON.stringify([model.host, host, namespace, name, tag]);
}

import type { GateLive, LoadedModel } from "../admin/live.ts";
import type { QueuedModel } from "../admin/status.ts";
import { parseModelName } from "../ollama/modelName.ts";
import { formatAge } from "../report/duration.ts";
import { html, type Markup } from "../report/markup.ts";
import { formatBytes, nameOf, type Row, table } from "./parts.ts";

/** A model that Ollama never unloads expires in centuries. */
const foreverMs = 365 * 86_400_000;

/** Models that are loaded or wanted, with what they take and when they go. */
export function models({ top, loaded }: GateLive, nowMs: number): Markup {
	const byName = new Map(
		(loaded ?? []).map((model) => [spelled(model.name), model]),
	);
	const queued = top.queue?.models ?? [];
	const known = new Set(queued.map(({ name }) => spelled(name)));
	const rows = [
		...queued.map((model) =>
			rowOf(model.name, model, byName.get(spelled(model.name)), nowMs),
		),
		...[...byName]
			.filter(([name]) => !known.has(name))
			.map(([, model]) => rowOf(model.name, undefined, model, nowMs)),
	];
	const head = [
		"Model",
		"State",
		"Memory",
		"Unloads",
		"At work",
		"Slots",
		"Waiting",
	];
	return html`<h2 id="h-models">Models</h2>
${rows.length === 0 ? html`<p>${loaded === null ? "Ollama does not say what is loaded." : "None is loaded."}</p>` : table("Models", head, rows)}`;
}

function rowOf(
	name: string,
	queued: QueuedModel | undefined,
	loaded: LoadedModel | undefined,
	nowMs: number,
): Row {
	return {
		cells: [
			nameOf(name),
			queued?.state ?? "loaded",
			loaded === undefined ? "–" : memoryOf(loaded),
			loaded === undefined ? "–" : expiryOf(loaded, nowMs),
			queued?.running ?? "–",
			queued?.slots ?? "–",
			queued?.waiting ?? "–",
		],
	};
}

/** "5.2 GiB", and how much of it the GPU has where that is not all. */
function memoryOf({ sizeBytes, vramBytes }: LoadedModel): string {
	// Ollama does not know of every runner; on a CPU it may say so of each.
	if (sizeBytes === 0) return "–";
	const size = formatBytes(sizeBytes);
	if (vramBytes >= sizeBytes) return size;
	return vramBytes === 0
		? `${size}, on the CPU`
		: `${size}, ${Math.round((100 * vramBytes) / sizeBytes)} % on the GPU`;
}

function expiryOf({ expiresAt }: LoadedModel, nowMs: number): string {
	if (expiresAt === null) return "–";
	const leftMs = Date.parse(expiresAt) - nowMs;
	if (leftMs > foreverMs) return "never";
	return leftMs <= 0 ? "now" : `in ${formatAge(leftMs)}`;
}

/** `qwen3`, `qwen3:latest` and `library/qwen3` are one model. */
function spelled(name: string): string {
	const parsed = parseModelName(name);
	if (parsed === undefined) return name;
	const { host, namespace, model, tag } = parsed;
	return `${host}/${namespace}/${model}:${tag}`;
}

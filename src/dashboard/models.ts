import type { GateLive } from "../admin/live.ts";
import { modelRows } from "../admin/models.ts";
import { html, type Markup } from "../report/markup.ts";
import { nameOf, type Row, table } from "./parts.ts";

/** Models that are loaded or wanted, with what they take and when they go. */
export function models(live: GateLive, nowMs: number): Markup {
	const known = modelRows(live, nowMs);
	const hasHosts = known.some(({ host }) => host !== undefined);
	const rows = known.map(
		({ name, host, state, memory, unloads, queued }): Row => ({
			cells: [
				nameOf(name),
				...(hasHosts ? [nameOf(host ?? "–")] : []),
				state,
				memory ?? "–",
				unloads ?? "–",
				queued?.running ?? "–",
				queued?.slots ?? "–",
				queued?.waiting ?? "–",
			],
		}),
	);
	const head = [
		"Model",
		...(hasHosts ? ["Host"] : []),
		"State",
		"Memory",
		"Unloads",
		"At work",
		"Slots",
		"Waiting",
	];
	return html`<h2 id="h-models">Models</h2>
${rows.length === 0 ? html`<p>${live.loaded === null ? "Ollama does not say what is loaded." : "None is loaded."}</p>` : table("Models", head, rows)}`;
}

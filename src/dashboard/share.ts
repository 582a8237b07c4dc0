import type { UsageRow } from "../ledger/store.ts";
import { formatTime } from "../report/duration.ts";
import { html, type Markup } from "../report/markup.ts";
import { bar, nameOf, type Row, table } from "./parts.ts";
import type { Usage } from "./usage.ts";

/** Users that are listed; the rest is summed up. */
const maxUsers = 10;

/** Who had how much of the GPU's time, today and this week. */
export function share(usage: Usage): Markup {
	const heading = html`<h2 id="h-share">Share of the GPU</h2>`;
	switch (usage.kind) {
		case "none":
			return html`${heading}
<p>No ledger is kept, so nobody knows. To keep one, add "ledger": {} to the configuration.</p>`;
		case "awaited":
			return html`${heading}
<p>The ledger has not answered yet.</p>`;
		case "unknown":
			return html`${heading}
<p>The ledger does not answer. On the server: systemctl status llamagate-ledger</p>`;
		case "sums":
			return html`${heading}
<div class="pair"><div>
<h3>Today</h3>
${sums("Share of the GPU today", usage.today)}
</div><div>
<h3>This week</h3>
${sums("Share of the GPU this week", usage.week)}
</div></div>
<p class="note">Since midnight, and since Monday (${usage.timezone}).</p>`;
	}
}

function sums(label: string, rows: readonly UsageRow[]): Markup {
	if (rows.length === 0) return html`<p>Nobody has used anything.</p>`;
	const totalMs = rows.reduce((sum, { gpuMs }) => sum + gpuMs, 0);
	const rest = rows.slice(maxUsers);
	const listed = [
		...rows.slice(0, maxUsers).map((row) => ({
			name: nameOf(row.user ?? "–"),
			gpuMs: row.gpuMs,
			requests: row.requests,
		})),
		...(rest.length === 0
			? []
			: [
					{
						name: html`${rest.length} others`,
						gpuMs: rest.reduce((sum, { gpuMs }) => sum + gpuMs, 0),
						requests: rest.reduce((sum, { requests }) => sum + requests, 0),
					},
				]),
	];
	return table(
		label,
		["User", "Share", "GPU time", "Requests"],
		listed.map(({ name, gpuMs, requests }): Row => {
			const part = totalMs === 0 ? 0 : gpuMs / totalMs;
			return {
				cells: [name, bar(part, Math.round), formatTime(gpuMs), requests],
			};
		}),
	);
}

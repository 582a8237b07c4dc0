import type { LiveBudget } from "../admin/live.ts";
import { formatTime } from "../report/duration.ts";
import { html, Markup } from "../report/markup.ts";
import { bar, formatMoment, nameOf, type Row, table } from "./parts.ts";

const measures = [
	["gpuMs", "GPU", formatTime],
	[
		"tokens",
		"tokens",
		(count: number) => Math.round(count).toLocaleString("en"),
	],
	["requests", "requests", (count: number) => count.toLocaleString("en")],
] as const;

/** What keys have used of their budgets, a row for each thing that is limited; nothing where none has one. */
export function budgets(list: readonly LiveBudget[]): Markup {
	if (list.length === 0) return new Markup("");
	const rows = list.flatMap((budget) =>
		measures.flatMap(([name, word, format]): Row[] => {
			const limit = budget.limits[name];
			if (limit === undefined) return [];
			const used = budget.used[name];
			const part = limit === 0 ? 1 : used / limit;
			return [
				{
					cells: [
						nameOf(budget.key),
						bar(part, Math.floor),
						`${format(used)} of ${format(limit)} ${word} a ${budget.per}${budget.isKnown ? "" : ", as far as is known"}`,
						formatMoment(budget.resetsAt),
					],
				},
			];
		}),
	);
	return html`<h2 id="h-budgets">Budgets</h2>
${table("Budgets", ["Key", "Used", "Of", "Begins anew"], rows)}`;
}

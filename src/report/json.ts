import { hasSeriousFindings, type Result } from "./result.ts";

/** What `--json` prints; docs/report.schema.json describes it for others. */
export interface JsonReport {
	/** Of llamagate. */
	readonly version: string;
	/** When, in ISO 8601, UTC. */
	readonly at: string;
	/** The host that was looked at. */
	readonly target: string;
	/** That nothing critical or high was found. What is unknown does not count against it. */
	readonly ok: boolean;
	/** In the order of the checks. */
	readonly results: readonly Result[];
}

/** The report of a run of checks, with what belongs into it and nothing that its results carry besides. */
export function toJson({
	version,
	at,
	target,
	results,
}: {
	readonly version: string;
	readonly at: Date;
	readonly target: string;
	readonly results: readonly Result[];
}): JsonReport {
	return {
		version,
		at: at.toISOString(),
		target,
		ok: !hasSeriousFindings(results),
		results: results.map(
			({ id, group, layer, title, severity, why, state, evidence, fix }) => ({
				id,
				group,
				layer,
				title,
				severity,
				why,
				state,
				evidence,
				...(fix === undefined ? {} : { fix }),
			}),
		),
	};
}

/** As JSON that does nothing to a terminal: what JSON leaves raw of what is hidden or steers is escaped, which changes no value. */
export function formatJson(report: object): string {
	return `${withoutHidden(JSON.stringify(report, undefined, 2))}\n`;
}

/** The same in one line. */
export function formatJsonLine(report: object): string {
	return `${withoutHidden(JSON.stringify(report))}\n`;
}

/** JSON with the same values, in which nothing is hidden and nothing steers. */
export function withoutHidden(json: string): string {
	return json.replace(
		/[[\p{C}\p{Zl}\p{Zp}\p{Default_Ignorable_Code_Point}]--[\n\t]]/gv,
		(character) =>
			character
				.split("")
				.map((unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`)
				.join(""),
	);
}

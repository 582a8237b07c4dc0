import { type Result, severities, worstFirst } from "./result.ts";
import { toneNames } from "./tone.ts";

/** "3 findings, worst: critical." or "Nothing found."; what could not be seen is told with it, since it is not a pass. */
export function headline(results: readonly Result[]): string {
	const findings = results.filter(({ state }) => state === "finding");
	const worst = worstFirst(findings)[0];
	const unknown = results.filter(({ state }) => state === "unknown").length;
	const found =
		worst === undefined
			? "Nothing found"
			: `${count(findings.length, "finding")}, worst: ${toneNames[worst.severity]}`;
	if (results.length === 0) return "Nothing was checked.";
	if (unknown === 0) return `${found}.`;
	return `${found}${worst === undefined ? ", but" : ";"} ${count(unknown, "check")} could not be made.`;
}

/** "2 critical, 1 high", worst first; an empty string for nothing. */
export function countSeverities(results: readonly Result[]): string {
	const findings = results.filter(({ state }) => state === "finding");
	return severities
		.map((severity) => ({
			severity,
			many: findings.filter((finding) => finding.severity === severity).length,
		}))
		.filter(({ many }) => many > 0)
		.map(({ severity, many }) => `${many} ${toneNames[severity]}`)
		.join(", ");
}

/** "1 finding", "2 findings". */
export function count(many: number, noun: string): string {
	return `${many} ${noun}${many === 1 ? "" : "s"}`;
}

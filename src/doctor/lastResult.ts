import { mkdir, readFile } from "node:fs/promises";
import path from "node:path";
import { formatJson, type JsonReport } from "../report/json.ts";
import type { Result } from "../report/result.ts";
import { toneNames, toneOf } from "../report/tone.ts";
import { replaceFile } from "../setup/snapshot.ts";
import { visibleLine } from "../visible.ts";

/** What the daily run found last; for root alone, since it says where a host is weak. */
export const lastResultFile = "/var/lib/llamagate/doctor.json";

/** How old it may be: it is made every day. */
export const lastResultFreshMs = 2 * 86_400_000;

/** The last result, or why there is none to read. */
export type LastResult =
	| { readonly kind: "report"; readonly report: JsonReport }
	| { readonly kind: "none" }
	/** Another user may read it. */
	| { readonly kind: "denied"; readonly why: string }
	/** Nobody can, or it is damaged. */
	| { readonly kind: "unreadable"; readonly why: string };

export async function readLastResult(
	file = lastResultFile,
): Promise<LastResult> {
	let text: string;
	try {
		text = await readFile(file, "utf8");
	} catch (error) {
		const { code, message } = error as NodeJS.ErrnoException;
		if (code === "ENOENT") return { kind: "none" };
		return code === "EACCES"
			? { kind: "denied", why: `only root may read ${file}` }
			: { kind: "unreadable", why: message };
	}
	try {
		const report = JSON.parse(text) as JsonReport;
		if (Number.isNaN(Date.parse(report.at)) || !report.results.every(isResult))
			throw new Error("it has another shape");
		return { kind: "report", report };
	} catch (error) {
		return {
			kind: "unreadable",
			why: `${file} is not a result of doctor's: ${(error as Error).message}`,
		};
	}
}

function isResult({ id, state, severity, title, evidence }: Result): boolean {
	return (
		[id, state, severity, title].every((text) => typeof text === "string") &&
		Array.isArray(evidence)
	);
}

/** Puts a result in the last one's place: there is the old one or the new one, whole. */
export async function keepResult(
	report: JsonReport,
	file = lastResultFile,
): Promise<void> {
	await mkdir(path.dirname(file), { recursive: true, mode: 0o700 });
	await replaceFile(file, formatJson(report), {
		uid: process.getuid?.() ?? 0,
		gid: process.getgid?.() ?? 0,
		mode: 0o600,
	});
}

/** A check whose answer is another than the last time. */
export interface Change {
	/** `undefined` where it was not made then. */
	readonly before: Result | undefined;
	readonly now: Result;
}

/**
 * What is not as it was. A finding that is critical or high is told of again when
 * it has other evidence; for the rest, whose evidence may be a number that changes
 * every day, the verdict counts. Without a last time all findings are new, and all
 * that could not be seen.
 */
export function changesSince(
	before: readonly Result[],
	now: readonly Result[],
): Change[] {
	const known = new Map(before.map((result) => [result.id, result]));
	return now
		.map((result) => ({ before: known.get(result.id), now: result }))
		.filter(({ before, now }) => {
			const tone = toneOf(now);
			if (before === undefined) return tone !== "ok" && tone !== "absent";
			if (toneOf(before) !== tone) return true;
			return (
				(tone === "critical" || tone === "high") &&
				before.evidence.join("\n") !== now.evidence.join("\n")
			);
		});
}

/** One line, whatever the evidence holds: `ollama.listening: was in order, is critical: 0.0.0.0:11434`. */
export function describeChange({ before, now }: Change): string {
	const was = before === undefined ? "" : `was ${toneNames[toneOf(before)]}, `;
	const seen = now.evidence.join("; ");
	const fix = now.state === "finding" ? now.fix : undefined;
	return visibleLine(
		[
			`${now.id}: ${was}is ${toneNames[toneOf(now)]}: ${seen === "" ? now.title : seen}`,
			...(fix === undefined ? [] : [`to do: ${fix}`]),
		].join(" | "),
		"; ",
	);
}

const priorities = {
	critical: 2,
	high: 3,
	warn: 4,
	unknown: 4,
	info: 6,
	ok: 5,
	absent: 5,
} as const;

/** What journald takes for the line's priority (sd-daemon(3)), so that `journalctl -p` finds what matters. */
export function priorityOf({ now }: Change): string {
	return `<${priorities[toneOf(now)]}>`;
}

import type { Result, Severity } from "./result.ts";

/** What a reader has to tell apart at a glance: by word and shape, and by colour besides. */
export type Tone = Severity | "unknown" | "ok" | "absent" | "unchecked";

export function toneOf({
	state,
	severity,
}: Result): Exclude<Tone, "unchecked"> {
	return state === "finding" ? severity : state;
}

export const toneNames: Readonly<Record<Tone, string>> = {
	critical: "critical",
	high: "high",
	warn: "warning",
	info: "info",
	unknown: "unknown",
	ok: "in order",
	absent: "not here",
	unchecked: "not checked",
};

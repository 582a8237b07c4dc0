import type { Result } from "./result.ts";

/** Checks that could not be made for one reason. */
export interface UnknownGroup {
	/** Why, in the words of the first of them. */
	readonly reason: string;
	/** How to find out, where that is known. */
	readonly remedy: string | undefined;
	readonly results: readonly Result[];
}

/** The checks that could not be made, by reason, in their order. One without a reason is alone. */
export function groupUnknowns(results: readonly Result[]): UnknownGroup[] {
	const groups = new Map<string | Result, UnknownGroup>();
	for (const result of results) {
		if (result.state !== "unknown") continue;
		const reason = needsRoot(result)
			? rootReason
			: (result.evidence[0]?.trim() ?? "");
		const key = reason === "" ? result : reason;
		const known = groups.get(key);
		groups.set(key, {
			reason,
			remedy: known?.remedy ?? result.fix,
			results: [...(known?.results ?? []), result],
		});
	}
	return [...groups.values()];
}

const rootReason = "only root can see this";

/** Whether a check could not be made for want of root. */
export function needsRoot({ state, evidence }: Result): boolean {
	return (
		state === "unknown" && evidence.some((line) => /\bonly root\b/.test(line))
	);
}

/** "Run with sudo: 12 of 71 checks need it."; `undefined` where none does. */
export function rootLine(results: readonly Result[]): string | undefined {
	const many = results.filter(needsRoot).length;
	return many === 0
		? undefined
		: `Run with sudo: ${many} of ${results.length} check${results.length === 1 ? "" : "s"} ${many === 1 ? "needs" : "need"} it.`;
}

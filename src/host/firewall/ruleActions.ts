import type { RuleChange } from "../../netfilter/ufwPlan.ts";
import {
	commandOf,
	familyCommandOf,
	parseRuleFile,
	type Rule,
	type RuleList,
	wordsOf,
} from "../../netfilter/ufwRules.ts";
import { entriesIn } from "../../setup/place.ts";
import type { CommandAction, ListPlace, Placed } from "../../setup/step.ts";

/** Where UFW keeps what its commands change. It counts the rules of both through. */
export const ruleFiles = {
	ipv4: "/etc/ufw/user.rules",
	ipv6: "/etc/ufw/user6.rules",
} as const;

const mark = "### tuple ###";

/** UFW keeps a rule for a profile as one for each of its ports, and counts them once (ufw/common.py, get_app_tuple). */
const profileLine = `^${mark}(?: \\S+){3} (\\S+) (\\S+) (\\S+) (?!- )(\\S+) (\\S+) (\\S+)`;

/** One of them, as it was read. */
export interface RuleFile {
	readonly kind: RuleList["kind"];
	readonly text: string;
}

/**
 * One change of the rules as an action.
 *
 * @param files with the rules that the plan was made from, by which one that is
 *   deleted comes back to its place, with its comment
 */
export function actionFor(
	{ how, rule }: RuleChange,
	files: readonly RuleFile[],
): CommandAction {
	const words = wordsOf(rule);
	const action = {
		kind: "command",
		changes: Object.values(ruleFiles),
		entryMark: mark,
	} as const;
	return how === "delete"
		? {
				...action,
				command: ["ufw", ...takeOut(words)],
				undoInPlace: placeOf(rule, files),
			}
		: {
				...action,
				command: ["ufw", ...(how === "prepend" ? [how] : []), ...words],
				undoIfChanged: [["ufw", ...takeOut(words)]],
			};
}

const takeOut = (words: readonly string[]) => ["--force", "delete", ...words];

function placeOf(rule: Rule, files: readonly RuleFile[]): Placed {
	const isIt = (line: string) => parseRuleFile(line).map(commandOf)[0] === rule;
	const lists = files.map(({ kind, text }): ListPlace => {
		const lines = entriesIn(text, mark);
		const first = lines.findIndex(isIt);
		const entries = lines.filter(isIt);
		const [kept] = parseRuleFile(entries[0] ?? "");
		return {
			file: ruleFiles[kind],
			...(kept === undefined
				? {}
				: {
						command: [
							"ufw",
							...wordsOf(familyCommandOf(kept)),
							...commentOf(entries[0] ?? ""),
						],
					}),
			ahead: lines.slice(0, Math.max(first, 0)),
			entries,
			behind: first < 0 ? [] : lines.slice(first).filter((line) => !isIt(line)),
		};
	});
	return {
		mark,
		countedOnce: profileLine,
		lists,
		otherwise: `UFW's rule "${rule}" is back, and does not stand where it stood among your others, which have changed since; see: sudo ufw status numbered`,
	};
}

/** UFW keeps it in hex. */
function commentOf(line: string): string[] {
	const hex = / comment=([0-9a-f]+)\s*$/.exec(line)?.[1];
	return hex === undefined
		? []
		: ["comment", Buffer.from(hex, "hex").toString("utf8")];
}

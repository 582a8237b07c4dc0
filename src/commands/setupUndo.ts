import { styleText } from "node:util";
import { exitCodes } from "../errors.ts";
import { keptRecords, ledgerFolder } from "../host/gate/ledgerUnit.ts";
import { formatJson } from "../report/json.ts";
import { takeBack } from "../setup/change.ts";
import type { Entry, Journal } from "../setup/journal.ts";
import type { Action } from "../setup/step.ts";
import { visible } from "../visible.ts";
import { agree, print, type Session } from "./setupSession.ts";
import { describe, mark } from "./setupText.ts";

/** Puts back everything that the journal says, the newest first. */
export async function undo(session: Session): Promise<number> {
	const { journal, dryRun, json } = session;
	const say = json ? () => {} : print;
	const { entries } = journal;
	const kept = await keptRecords();
	const report = (left: readonly string[], code: number) => {
		if (json)
			print(formatJson({ undone: doneOf(entries, journal), left, kept }));
		return code;
	};
	const sayWhatStays = () => {
		for (const folder of kept)
			say(
				`What the ledger has written stays, in ${folder}. To delete it:\n  sudo rm -r ${folder} ${ledgerFolder}\n`,
			);
	};
	const unread = unreadIn(journal);
	for (const line of unread) say(`${visible(line)}\n`);
	if (entries.length === 0) {
		if (unread.length === 0)
			say("Setup has changed nothing here that it could put back.\n");
		sayWhatStays();
		await journal.remove();
		return report(
			unread,
			unread.length === 0 ? exitCodes.ok : exitCodes.finding,
		);
	}
	say("This is taken back, the newest first:\n");
	for (const { step, action } of entries)
		if (leavesTraces(action))
			say(`  ${styleText("dim", step.padEnd(10))} ${describe(action)}\n`);
	if (dryRun) {
		sayWhatStays();
		return report(unread, exitCodes.ok);
	}
	say(
		`${styleText("yellow", "After this the host is as open as it was before setup.")}\n`,
	);
	if (
		!(await agree(
			`Take back these ${entries.filter(({ action }) => leavesTraces(action)).length} changes?`,
			session,
		))
	)
		return report([], exitCodes.finding);
	const left = [...unread];
	for (const entry of entries) {
		const undone = await takeBack(entry, journal);
		left.push(...undone.left);
		if (leavesTraces(entry.action))
			say(`  ${mark(undone.left.length === 0)} ${describe(entry.action)}\n`);
		for (const rest of undone.left) say(`      ${visible(rest)}\n`);
	}
	if (journal.entries.length === 0) await journal.remove();
	else
		left.push(
			"What failed is still written down: mend its cause and run this again",
		);
	say(
		left.length === 0
			? "\nThis host is as it was before.\n"
			: "\nAll but what is named above is as it was before.\n",
	);
	sayWhatStays();
	return report(left, left.length === 0 ? exitCodes.ok : exitCodes.finding);
}

/** What of these is not written down any more, since it has been taken back. */
function doneOf(entries: readonly Entry[], journal: Journal): string[] {
	const remaining = new Set(journal.entries.map(({ number }) => number));
	return entries
		.filter(({ number }) => !remaining.has(number))
		.map(({ action }) => describe(action));
}

/** Whether there is something to take back; a reload or a test of a file leaves nothing. */
function leavesTraces(action: Action): boolean {
	return (
		action.kind !== "command" ||
		(action.undo ?? []).length + (action.changes ?? []).length > 0
	);
}

/** What nobody can take back by the journal, in a sentence. */
export function unreadIn({ file, unreadLines }: Journal): string[] {
	return unreadLines === 0
		? []
		: [
				`${unreadLines} line(s) of ${file} are damaged, and what they told of is not taken back; look at them, and once that is dealt with, take them out`,
			];
}

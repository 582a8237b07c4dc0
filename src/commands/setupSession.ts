import type { Journal } from "../setup/journal.ts";
import { askYesNo } from "./ask.ts";

/** What was asked of one run of setup, and the journal that it writes. */
export interface Session {
	readonly journal: Journal;
	readonly dryRun: boolean;
	readonly agreed: boolean;
	readonly json: boolean;
}

/** Whether the changes were agreed to, by `--yes` or now. */
export async function agree(
	question: string,
	{ agreed }: Session,
): Promise<boolean> {
	if (agreed) return true;
	// Through a pipe the question may never be seen, and sudo may never pass the answer on.
	if (!process.stdin.isTTY || !process.stdout.isTTY) {
		process.stderr.write(
			"llamagate setup: found no terminal to ask on; look with --dry-run, then add --yes\n",
		);
		return false;
	}
	return askYesNo(question, process.stdout);
}

export function print(text: string): void {
	process.stdout.write(text);
}

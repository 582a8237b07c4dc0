import { chmod, chown, mkdir, rm } from "node:fs/promises";
import { accountNumber } from "../system/accounts.ts";
import {
	type Ended,
	formatCommand,
	outputOf,
	runProgram,
} from "../system/run.ts";
import type { Entry, Journal } from "./journal.ts";
import {
	putBack,
	replaceFile,
	sameSnapshot,
	takeSnapshot,
	temporaryNameOf,
} from "./snapshot.ts";
import type { Action, Ownership } from "./step.ts";

/** An action that failed; the message says which, and what the program said. */
export class ActionError extends Error {
	readonly code = "LLAMAGATE_ACTION";
}

/** What an action changes on disk. */
function pathsOf(action: Action): readonly string[] {
	return action.kind === "command" ? (action.changes ?? []) : [action.path];
}

async function numberOf(
	database: "passwd" | "group",
	name: string,
): Promise<number> {
	const number = await accountNumber(database, name);
	if (number === undefined)
		throw new ActionError(`this host has no ${name} in its ${database} file`);
	return number;
}

async function resolve({ user, group, mode }: Ownership) {
	return {
		uid: await numberOf("passwd", user),
		gid: await numberOf("group", group),
		mode,
	};
}

function complaintOf(
	command: readonly string[],
	{ code, stdout, stderr }: Ended,
): string {
	const said = (stderr.trim() || stdout.trim()).split("\n").slice(-8);
	return `${formatCommand(command)} ended with ${code}${said[0] === "" ? "" : `:\n  ${said.join("\n  ")}`}`;
}

/** What a service said that would not start: it is gone from sight once the step is taken back. */
async function lastWordsOf([
	name,
	...args
]: readonly string[]): Promise<string> {
	const unit = args.at(-1);
	if (name !== "systemctl" || unit?.includes(".") !== true) return "";
	const said = await outputOf(
		"journalctl",
		"--boot",
		"--lines=6",
		"--output=cat",
		"--no-pager",
		`--unit=${unit}`,
	);
	return said === undefined || said.trim() === ""
		? ""
		: `\n  ${unit} said last:\n    ${said.trim().split("\n").join("\n    ")}`;
}

/**
 * Does one thing, written down before and after.
 *
 * @param show is given what the program printed, if that is for the person's
 *   eyes; it has seen it before the journal says that all is done
 * @throws {ActionError} if it failed; the journal then holds it as cut off
 */
export async function perform(
	action: Action,
	step: string,
	journal: Journal,
	show: (output: string) => void,
): Promise<void> {
	const number = await journal.begin(step, action, pathsOf(action));
	switch (action.kind) {
		case "file":
			await replaceFile(action.path, action.content, await resolve(action));
			break;
		case "directory": {
			const { uid, gid, mode } = await resolve(action);
			await mkdir(action.path, { recursive: true, mode: 0o755 });
			await chown(action.path, uid, gid);
			await chmod(action.path, mode);
			break;
		}
		case "command": {
			const ended = await runProgram(action.command, {
				timeoutMs: action.timeoutMs ?? 120_000,
			});
			if (ended.code !== 0)
				throw new ActionError(
					complaintOf(action.command, ended) +
						(await lastWordsOf(action.command)),
				);
			if (action.shown) show(ended.stdout);
		}
	}
	await journal.end(number);
}

/** What came of taking an action back. */
export interface Undone {
	/** What could not be put back, and why; nothing else of the host was touched for it. */
	readonly left: readonly string[];
}

/**
 * Takes one action back: puts back every file as it was, and runs the commands
 * that go with it. A file that has changed otherwise since is left as it is.
 */
export async function takeBack(
	entry: Entry,
	journal: Journal,
): Promise<Undone> {
	const left: string[] = [];
	const { action, before, after } = entry;
	let foreign = false;
	for (const [index, wanted] of before.entries()) {
		await rm(temporaryNameOf(wanted.path), { force: true });
		const { snapshot: now } = await takeSnapshot(wanted.path);
		if (sameSnapshot(now, wanted)) continue;
		const made = after?.[index];
		if (made !== undefined && !sameSnapshot(now, made)) {
			foreign = true;
			if (action.kind !== "command" || action.undoIfChanged === undefined)
				left.push(`${wanted.path} has been changed since and stays as it is`);
			continue;
		}
		if (!(await putBack(wanted, (sha256) => journal.kept(sha256))))
			left.push(`${wanted.path} holds something else by now and stays`);
	}
	let failed = false;
	const instead =
		foreign && action.kind === "command" ? action.undoIfChanged : undefined;
	for (const command of [...(instead ?? []), ...(action.undo ?? [])]) {
		const ended = await runProgram(command, { timeoutMs: 120_000 });
		// What was cut off may not have got so far that there is something to undo.
		if (ended.code !== 0 && after !== undefined) {
			left.push(complaintOf(command, ended));
			failed = true;
		}
	}
	// What failed may not fail again: Docker may just have been down.
	if (!failed) await journal.undone(entry.number);
	return { left };
}

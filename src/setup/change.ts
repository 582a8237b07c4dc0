import { chmod, chown, mkdir, rm, stat } from "node:fs/promises";
import path from "node:path";
import { accountNumber } from "../system/accounts.ts";
import {
	type Ended,
	formatCommand,
	outputOf,
	runProgram,
} from "../system/run.ts";
import type { Entry, Journal } from "./journal.ts";
import { entriesIn, isInPlace, putInPlace } from "./place.ts";
import {
	digestOf,
	holdsSame,
	putBack,
	replaceFile,
	type Snapshot,
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

/** What the plan did not count with: somebody else's changes since, or a link that leads elsewhere. */
async function refuseOtherPlace(action: Action): Promise<void> {
	if (action.kind === "command") return;
	const { snapshot: now } = await takeSnapshot(action.path);
	if (action.kind === "directory") {
		if (now.kind === "link")
			throw new ActionError(
				`${action.path} is a link to ${now.target}; put a folder in its place`,
			);
		return;
	}
	const { seen, content } = action;
	const isWritten = now.kind === "file" && now.sha256 === digestOf(content);
	if (seen !== undefined && !isWritten && !holdsSame(now, seen))
		throw new ActionError(`${action.path} has changed since the plan was made`);
}

/**
 * Does one thing, written down before and after.
 *
 * @param show is given what the program printed, if that is for the person's
 *   eyes; it has seen it before the journal says that all is done
 * @throws {ActionError} if it failed; the journal then holds it as cut off. If
 *   what stands there is not what the plan was made from, nothing is begun
 */
export async function perform(
	action: Action,
	step: string,
	journal: Journal,
	show: (output: string) => void,
): Promise<void> {
	await refuseOtherPlace(action);
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
	/** What is not as it was, and why; or what was put back and may have been somebody else's, and where its copy is. */
	readonly left: readonly string[];
}

/**
 * Takes one action back: puts back every file as it was, and runs the commands
 * that go with it. A file that has changed otherwise since is left as it is.
 *
 * What was cut off has no record of what it left. There a file stays that the
 * action cannot have made; what a command may have made is put back, once a copy
 * of it is kept, since it may be somebody else's by now.
 */
export async function takeBack(
	entry: Entry,
	journal: Journal,
): Promise<Undone> {
	const left: string[] = [];
	const { action, before, after } = entry;
	const contentOf = (sha256: string) => journal.kept(sha256);
	const { undoIfChanged: instead, undoInPlace: placed } =
		action.kind === "command" ? action : {};
	const hasInstead = instead !== undefined || placed !== undefined;
	let foreign = false;
	const doubtful: Snapshot[] = [];
	for (const [index, wanted] of before.entries()) {
		const file = wanted.path;
		await rm(temporaryNameOf(file), { force: true });
		const { snapshot: now, content } = await takeSnapshot(file);
		if (sameSnapshot(now, wanted)) continue;
		if (
			wanted.kind !== "nothing" &&
			now.kind === "nothing" &&
			!(await isFolder(path.dirname(file)))
		) {
			left.push(`${file} stays away, since the folder that it was in is gone`);
			continue;
		}
		if (wanted.kind === "file" && !(await journal.hasKept(wanted.sha256))) {
			foreign = true;
			if (!hasInstead)
				left.push(
					`${file} stays as it is: the copy of what it held before is gone or damaged`,
				);
			continue;
		}
		const maker = await makerOf(action, wanted, after?.[index], now);
		if (maker === "somebody else") {
			foreign = true;
			if (!hasInstead)
				left.push(`${file} has been changed since and stays as it is`);
			continue;
		}
		if (maker === "unknown" && hasInstead) {
			doubtful.push(wanted);
			continue;
		}
		if (maker === "unknown" && now.kind === "file" && content !== undefined)
			left.push(
				`${file} is put back, and what it held may have been yours in part: it is in ${await journal.keepCopy(now.sha256, content)} until "llamagate setup --undo" is run after this`,
			);
		if (!(await putBack(wanted, contentOf)))
			left.push(`${file} holds something else by now and stays`);
	}
	let failed = false;
	const run = async (commands: readonly (readonly string[])[] = []) => {
		let worked = true;
		for (const command of commands) {
			const ended = await runProgram(command, { timeoutMs: 120_000 });
			if (ended.code === 0) continue;
			worked = false;
			// What was cut off may not have got so far that there is something to undo.
			if (after === undefined) continue;
			left.push(complaintOf(command, ended));
			failed = true;
		}
		return worked;
	};
	const isInstead = foreign || doubtful.length > 0;
	const worked = !isInstead
		? undefined
		: placed
			? await putInPlace(
					placed,
					async (command, orElse) =>
						(await runProgram(command, { timeoutMs: 120_000 })).code === 0 ||
						run([orElse]),
				)
			: await run(instead);
	for (const wanted of doubtful) {
		const { snapshot: now, content } = await takeSnapshot(wanted.path);
		if (sameSnapshot(now, wanted)) continue;
		if (
			wanted.kind === "file" &&
			content !== undefined &&
			haveSameEntries(action, content, await contentOf(wanted.sha256))
		)
			await putBack(wanted, contentOf);
		else if (!worked)
			left.push(
				`${wanted.path} stays as it is, and may hold what the run that was cut off has done`,
			);
	}
	if (isInstead && worked && placed && !(await isInPlace(placed)))
		left.push(placed.otherwise);
	await run(action.undo);
	// What failed may not fail again: Docker may just have been down.
	if (!failed) await journal.undone(entry.number);
	return { left };
}

/** Who left what stands at a path now, which is not what stood there before the action. */
async function makerOf(
	action: Action,
	before: Snapshot,
	made: Snapshot | undefined,
	now: Snapshot,
): Promise<"setup" | "somebody else" | "unknown"> {
	const setupIf = (is: boolean) => (is ? "setup" : "somebody else");
	if (made !== undefined) return setupIf(sameSnapshot(now, made));
	switch (action.kind) {
		case "file":
			// It is renamed into its place whole.
			return setupIf(
				now.kind === "file" && now.sha256 === digestOf(action.content),
			);
		case "directory": {
			if (now.kind !== "directory") return "somebody else";
			// One that was made anew goes only if it is empty.
			if (before.kind !== "directory") return "setup";
			// The owner is changed first, then the mode.
			const { user, group, mode } = action;
			return setupIf(
				[before.uid, await accountNumber("passwd", user)].includes(now.uid) &&
					[before.gid, await accountNumber("group", group)].includes(now.gid) &&
					[before.mode, mode].includes(now.mode),
			);
		}
		case "command":
			if (now.kind === "file") return "unknown";
			// With nothing there, nobody loses anything.
			return setupIf(now.kind === "nothing" || now.kind === before.kind);
	}
}

/** Whether two states of a file say the same, in whatever order and form its program writes it. */
function haveSameEntries(action: Action, a: Buffer, b: Buffer): boolean {
	const mark = action.kind === "command" ? (action.entryMark ?? "") : "";
	const [one, other] = [a, b].map((content) =>
		entriesIn(content.toString("utf8"), mark).sort().join("\n"),
	);
	return one === other;
}

async function isFolder(place: string): Promise<boolean> {
	return stat(place).then(
		(stats) => stats.isDirectory(),
		() => false,
	);
}

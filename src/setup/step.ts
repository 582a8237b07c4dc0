import type { Snapshot } from "./snapshot.ts";

/** What setup's steps are called, in their order. */
export const stepIds = [
	"account",
	"ollama",
	"bridges",
	"gate",
	"ufw",
	"tailscale",
	"open-webui",
	"sshd",
	"fail2ban",
] as const;
export type StepId = (typeof stepIds)[number];

/** Who owns a file that setup writes; by name, since the user may be made on the way. */
export interface Ownership {
	readonly user: string;
	readonly group: string;
	/** Permission bits. */
	readonly mode: number;
}

export type Command = readonly string[];

/** Where an entry stood in a list: whole lines of its file. */
export interface ListPlace {
	readonly file: string;
	/** Puts it at the end of this list; absent where it did not stand here. */
	readonly command?: Command;
	readonly ahead: readonly string[];
	/** Several where the program splits it. */
	readonly entries: readonly string[];
	readonly behind: readonly string[];
}

/**
 * An entry of lists whose order counts. Their program takes `insert NUMBER` ahead
 * of the words of a command, and counts through all of the lists.
 */
export interface Placed {
	/** How the lines of entries begin. */
	readonly mark: string;
	/** A pattern: lines with the same captures are one entry to the program where it counts on into the next list. */
	readonly countedOnce?: string;
	readonly lists: readonly ListPlace[];
	/** What to tell where it could not be put back between its neighbours. */
	readonly otherwise: string;
}

interface Undoable {
	/** Commands to be run once this has been put back, in their order. */
	readonly undo?: readonly (readonly string[])[];
}

/** A file to be written whole, in place of what is there. */
export interface FileAction extends Undoable, Ownership {
	readonly kind: "file";
	readonly path: string;
	readonly content: string;
	/** What stood there when the plan was made; by the time of an answer it may be another's work. */
	readonly seen?: Snapshot;
}

/** A directory to be made, or to be given another owner or mode. */
export interface DirectoryAction extends Undoable, Ownership {
	readonly kind: "directory";
	readonly path: string;
}

/** A program to be run. */
export interface CommandAction extends Undoable {
	readonly kind: "command";
	readonly command: readonly string[];
	/** Files that it changes: they are kept before and put back at undo. */
	readonly changes?: readonly string[];
	/**
	 * Commands to be run in place of putting the files back, where they have
	 * changed otherwise since, or may have since the run that was cut off.
	 */
	readonly undoIfChanged?: readonly (readonly string[])[];
	/** In place of `undoIfChanged`, for an entry whose place counts. */
	readonly undoInPlace?: Placed;
	/**
	 * How the lines of its files begin that a person may have written; all else is
	 * the program's own form, which it may write anew. Without it each line counts.
	 */
	readonly entryMark?: string;
	/** Its output is for the person's eyes: it is shown, and written down nowhere. */
	readonly shown?: boolean;
	/** How long it may take. */
	readonly timeoutMs?: number;
}

/** A file of root's that everybody may read. */
export function rootFile(
	path: string,
	content: string,
	undo?: FileAction["undo"],
): FileAction {
	return {
		kind: "file",
		path,
		content,
		user: "root",
		group: "root",
		mode: 0o644,
		...(undo === undefined ? {} : { undo }),
	};
}

/** A directory of root's that everybody may read. */
export function rootDirectory(path: string): DirectoryAction {
	return {
		kind: "directory",
		path,
		user: "root",
		group: "root",
		mode: 0o755,
	};
}

/** One change of the host, as it is shown, made, written down and taken back. */
export type Action = FileAction | DirectoryAction | CommandAction;

/** What a step found when it looked at the host. */
export interface Inspection {
	/**
	 * `done`: nothing is left to do. `todo`: `actions` are to be taken. `absent`:
	 * what the step is about is not on this host. `unsafe`: it could do harm as
	 * things are, or cannot be done by a program; `says` tells what to do first.
	 */
	readonly state: "done" | "todo" | "absent" | "unsafe";
	/** One sentence: what was seen. */
	readonly says: string;
	readonly actions: readonly Action[];
	/** What the person should know, besides. */
	readonly notes: readonly string[];
}

/** Something that was looked at after the step, by its effect. */
export interface Proof {
	readonly ok: boolean;
	/** What was seen. */
	readonly says: string;
	/** It shows later: another machine may be off now, and this one is not at fault. */
	readonly isPending?: boolean;
	/** What to do where it is not as it should be. */
	readonly advice?: string;
}

/** One step from an open Ollama to a locked host. */
export interface Step {
	readonly id: string;
	readonly title: string;
	/** One sentence: what it is good for. */
	readonly why: string;
	/** Looks, and changes nothing. */
	inspect(): Promise<Inspection>;
	/** Looks whether it holds, by effect. Called when all its actions are done. */
	prove(): Promise<readonly Proof[]>;
}

export function done(says: string, notes: readonly string[] = []): Inspection {
	return { state: "done", says, actions: [], notes };
}

export function todo(
	says: string,
	actions: readonly Action[],
	notes: readonly string[] = [],
): Inspection {
	return { state: "todo", says, actions, notes };
}

export function absent(
	says: string,
	notes: readonly string[] = [],
): Inspection {
	return { state: "absent", says, actions: [], notes };
}

export function unsafe(
	says: string,
	notes: readonly string[] = [],
): Inspection {
	return { state: "unsafe", says, actions: [], notes };
}

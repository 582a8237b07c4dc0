import {
	appendFile,
	mkdir,
	readFile,
	rm,
	rmdir,
	stat,
	truncate,
} from "node:fs/promises";
import path from "node:path";
import {
	digestOf,
	replaceFile,
	type Snapshot,
	syncDirectory,
	takeSnapshot,
} from "./snapshot.ts";
import type { Action } from "./step.ts";

/** One action that was begun, as the journal tells of it. */
export interface Entry {
	readonly number: number;
	readonly step: string;
	/** ISO 8601. */
	readonly at: string;
	readonly action: Action;
	readonly before: readonly Snapshot[];
	/** What stood there once it was done; absent if it was cut off. */
	readonly after?: readonly Snapshot[];
}

/** A file's content is not part of what is written down twice. */
type Written =
	| ({ readonly kind: "begin" } & Omit<Entry, "after">)
	| {
			readonly kind: "end";
			readonly number: number;
			readonly after: readonly Snapshot[];
	  }
	| { readonly kind: "undone"; readonly number: number }
	/** A step begins after the action of this number, or is through. */
	| { readonly kind: "step"; readonly number: number; readonly step: string }
	| { readonly kind: "through"; readonly number: number };

/**
 * What setup has changed on this host, in a folder that only root may read:
 * `journal.jsonl`, a line before and one after each action, and under `kept/`
 * the bytes of every file as it was, by their digest. A line is on disk before
 * the action that it tells of begins, so that a crash at any moment leaves
 * enough to take everything back.
 */
export class Journal {
	readonly #folder: string;
	readonly #entries = new Map<number, Entry>();
	#last = 0;
	/** The last action before the step that is not through yet. */
	#stepAfter: number | undefined;
	#hasCopies = false;
	#unreadLines = 0;

	private constructor(folder: string) {
		this.#folder = folder;
	}

	static async open(folder: string): Promise<Journal> {
		const journal = new Journal(folder);
		const bytes = await readFile(journal.file).catch(
			(error: NodeJS.ErrnoException) => {
				if (error.code === "ENOENT") return Buffer.alloc(0);
				throw error;
			},
		);
		const wholeBytes = bytes.lastIndexOf("\n") + 1;
		for (const line of bytes.toString("utf8", 0, wholeBytes).split("\n")) {
			if (line === "") continue;
			const written = readLine(line);
			if (written === undefined) journal.#unreadLines += 1;
			else journal.#take(written);
		}
		// A line that a crash broke off tells of nothing that was begun.
		if (wholeBytes < bytes.length) await truncate(journal.file, wholeBytes);
		return journal;
	}

	/** Where it is written, a line for each thing. */
	get file(): string {
		return path.join(this.#folder, "journal.jsonl");
	}

	/** How many lines are damaged: what they told of cannot be taken back. */
	get unreadLines(): number {
		return this.#unreadLines;
	}

	#take(written: Written): void {
		this.#last = Math.max(this.#last, written.number);
		if (written.kind === "begin") {
			const { kind: _, ...entry } = written;
			this.#entries.set(entry.number, entry);
		} else if (written.kind === "undone") this.#entries.delete(written.number);
		else if (written.kind === "step") this.#stepAfter = written.number;
		else if (written.kind === "through") this.#stepAfter = undefined;
		else {
			const entry = this.#entries.get(written.number);
			if (entry !== undefined)
				this.#entries.set(entry.number, { ...entry, after: written.after });
		}
	}

	/** What has been begun and not been taken back, the newest first. */
	get entries(): readonly Entry[] {
		return [...this.#entries.values()].sort((a, b) => b.number - a.number);
	}

	/** What the step has done that was cut off, the newest first; none where the last one came through. */
	get cutOff(): readonly Entry[] {
		const after = this.#stepAfter;
		return after === undefined
			? []
			: this.entries.filter(({ number }) => number > after);
	}

	/** A step is done whole or not at all: what is between these two is taken back by the next run. */
	async beginStep(step: string): Promise<void> {
		await this.#write({ kind: "step", number: this.#last, step });
	}

	async endStep(): Promise<void> {
		await this.#write({ kind: "through", number: this.#last });
	}

	/**
	 * Writes down what is about to be done, and keeps what it will change.
	 *
	 * @returns the number by which `end` and `undone` know it
	 */
	async begin(
		step: string,
		action: Action,
		paths: readonly string[],
	): Promise<number> {
		const before: Snapshot[] = [];
		for (const file of paths) {
			const { snapshot, content } = await takeSnapshot(file);
			before.push(snapshot);
			if (snapshot.kind === "file" && content !== undefined)
				await this.#keep(snapshot.sha256, content);
		}
		const number = this.#last + 1;
		await this.#write({
			kind: "begin",
			number,
			step,
			at: new Date().toISOString(),
			action,
			before,
		});
		return number;
	}

	async end(number: number): Promise<void> {
		const entry = this.#entries.get(number);
		const after: Snapshot[] = [];
		for (const { path: file } of entry?.before ?? [])
			after.push((await takeSnapshot(file)).snapshot);
		await this.#write({ kind: "end", number, after });
	}

	async undone(number: number): Promise<void> {
		await this.#write({ kind: "undone", number });
	}

	/** The bytes of a file as it was. @throws where the copy is not there or not whole */
	async kept(sha256: string): Promise<Buffer> {
		const place = this.#placeOf(sha256);
		const content = await readFile(place);
		if (digestOf(content) !== sha256)
			throw new Error(`${place} is damaged: it does not hold what was kept`);
		return content;
	}

	/** Whether the bytes of a file as it was are there, whole. */
	async hasKept(sha256: string): Promise<boolean> {
		return this.kept(sha256).then(
			() => true,
			() => false,
		);
	}

	/**
	 * Keeps the bytes of a file that may be somebody else's work, for that person
	 * to find.
	 *
	 * @returns where they are; they stay there until another run removes the journal
	 */
	async keepCopy(sha256: string, content: Buffer): Promise<string> {
		this.#hasCopies = true;
		await this.#keep(sha256, content);
		return this.#placeOf(sha256);
	}

	#placeOf(sha256: string): string {
		return path.join(this.#folder, "kept", sha256);
	}

	async #keep(sha256: string, content: Buffer): Promise<void> {
		const place = this.#placeOf(sha256);
		await mkdir(path.dirname(place), { recursive: true, mode: 0o700 });
		// It may be the only one by now: it is written over by nothing.
		if (await this.hasKept(sha256)) return;
		await replaceFile(place, content, {
			uid: process.getuid?.() ?? 0,
			gid: process.getgid?.() ?? 0,
			mode: 0o600,
		});
	}

	/** Leaves nothing of itself, once everything is taken back; but what this run has kept for somebody else it leaves, and what only a person may still read. */
	async remove(): Promise<void> {
		if (this.#hasCopies || this.#unreadLines > 0) return;
		await rm(this.#folder, { recursive: true, force: true });
		// The folder above is left where it holds something else.
		await rmdir(path.dirname(this.#folder)).catch(() => {});
	}

	async #sizeBytes(): Promise<number> {
		return stat(this.file).then(
			({ size }) => size,
			(error: NodeJS.ErrnoException) => {
				if (error.code === "ENOENT") return 0;
				throw error;
			},
		);
	}

	async #write(written: Written): Promise<void> {
		await mkdir(this.#folder, { recursive: true, mode: 0o700 });
		const before = await this.#sizeBytes();
		try {
			await appendFile(this.file, `${JSON.stringify(written)}\n`, {
				mode: 0o600,
				flush: true,
			});
		} catch (error) {
			// A full disk takes half of a line, and the next would be written on after it.
			await truncate(this.file, before).catch(() => {});
			throw error;
		}
		await syncDirectory(this.#folder);
		this.#take(written);
	}
}

const kinds: ReadonlySet<unknown> = new Set<Written["kind"]>([
	"begin",
	"end",
	"undone",
	"step",
	"through",
]);

/**
 * Reads a line; also one that was written on after half of another, which tells
 * of nothing that was begun.
 *
 * @returns `undefined` where it is damaged
 */
function readLine(line: string): Written | undefined {
	for (let at = 0; at !== -1; at = line.indexOf('{"kind":', at + 1)) {
		const written = parse(line.slice(at));
		if (kinds.has(written?.kind) && Number.isSafeInteger(written?.number))
			return written;
	}
	return undefined;
}

function parse(text: string): Written | undefined {
	try {
		return Object(JSON.parse(text)) as Written;
	} catch {
		return undefined;
	}
}

import { BadFileError } from "../errors.ts";
import type { Log } from "../log.ts";
import { type NotedRules, noteRules } from "./noteRules.ts";
import { type Rules, withKeysAnew, withoutGoneKeys } from "./rules.ts";
import type { LeftOver } from "./takeOver.ts";

export type ReloadResult =
	| ({ readonly ok: true; readonly keys: number } & LeftOver)
	| {
			readonly ok: false;
			readonly file: string;
			readonly mistakes: BadFileError["mistakes"];
			/** How many keys were taken over all the same, with the settings that were in force. */
			readonly keys?: number;
			/** Where they were not: how many are out of force, as they are not in their file any more. */
			readonly gone?: number;
	  };

/** Reads the rules anew and puts them in force, or leaves those that are. */
export class Reloader {
	/** A time just before the rules were last read, and whether they were taken. */
	last: { readonly at: Date; readonly ok: boolean };
	/** Of the files whose rules were taken last (`NotedRules`), but for a reading of the keys alone. */
	mark: string;
	rules: Rules;
	/** Sections in which the rules differ from what runs since the start. */
	restart: LeftOver["restart"] = [];
	readonly #load: () => Promise<Rules>;
	readonly #apply: (next: Rules, previous: Rules) => LeftOver;
	readonly #log: Log;
	#running: Promise<ReloadResult> | undefined;
	#next: Promise<ReloadResult> | undefined;
	#nextKeysAtLeast = false;

	/**
	 * @param rules those in force
	 * @param read a time before they were read, and the mark of their files
	 * @param load reads the rules, and throws a `BadFileError` if they would not do
	 * @param apply puts rules in force, and says what of them takes a restart
	 */
	constructor(
		rules: Rules,
		read: { readonly at: Date; readonly mark: string },
		load: () => Promise<Rules>,
		apply: (next: Rules, previous: Rules) => LeftOver,
		log: Log,
	) {
		this.rules = rules;
		this.last = { at: read.at, ok: true };
		this.mark = read.mark;
		this.#load = load;
		this.#apply = apply;
		this.#log = log;
	}

	/**
	 * Reads both files anew. A reload asked for while one runs waits for it, so that it
	 * reads what was written meanwhile.
	 *
	 * @param keysAtLeast where the configuration is broken, take the keys over all the
	 *   same; where they do not go with it, take those out of force that are gone
	 */
	reload(keysAtLeast = false): Promise<ReloadResult> {
		if (this.#running === undefined) {
			this.#running = this.#reloadOnce(keysAtLeast).finally(() => {
				this.#running = undefined;
			});
			return this.#running;
		}
		this.#nextKeysAtLeast ||= keysAtLeast;
		this.#next ??= this.#running.then(() => {
			this.#next = undefined;
			const again = this.#nextKeysAtLeast;
			this.#nextKeysAtLeast = false;
			return this.reload(again);
		});
		return this.#next;
	}

	async #reloadOnce(keysAtLeast: boolean): Promise<ReloadResult> {
		// What is written while they are read may not be in what was read.
		const at = new Date();
		let next: NotedRules;
		try {
			next = await noteRules(this.#load);
		} catch (error) {
			if (!(error instanceof BadFileError)) throw error;
			const { file, mistakes } = error;
			this.last = { at, ok: false };
			this.#log.error(
				{ file, mistakes },
				"reload refused; what was in force stays in force",
			);
			const result = { ok: false, file, mistakes } as const;
			return keysAtLeast
				? { ...result, ...(await this.#reloadKeys()) }
				: result;
		}
		const left = this.#take(next.rules);
		this.last = { at, ok: true };
		this.mark = next.mark;
		const keys = next.rules.keyring.names.length;
		this.#log.info({ keys }, "reloaded");
		return { ok: true, keys, ...left };
	}

	/** A lost key must go although a setting is misspelt. */
	async #reloadKeys(): Promise<{ keys?: number; gone?: number }> {
		const next = await unlessBad(withKeysAnew(this.rules));
		if (next === undefined) return this.#leaveGoneOut();
		this.#take(next);
		const keys = next.keyring.names.length;
		this.#log.warn(
			{ keys },
			"the keys are taken over; the old settings stay in force",
		);
		return { keys };
	}

	/** And although something is wrong with another key. */
	async #leaveGoneOut(): Promise<{ gone?: number }> {
		const next = await unlessBad(withoutGoneKeys(this.rules));
		if (next === undefined) return {};
		const gone = this.rules.keyring.ids.length - next.keyring.ids.length;
		this.#take(next);
		this.#log.warn(
			{ gone },
			"keys that are gone from their file are out of force; the others stay as they were",
		);
		return { gone };
	}

	#take(next: Rules): LeftOver {
		const previous = this.rules;
		this.rules = next;
		const left = this.#apply(next, previous);
		this.restart = left.restart;
		return left;
	}
}

/** `undefined` where a file would not load. */
async function unlessBad<Loaded>(
	loading: Promise<Loaded>,
): Promise<Loaded | undefined> {
	try {
		return await loading;
	} catch (error) {
		if (error instanceof BadFileError) return undefined;
		throw error;
	}
}

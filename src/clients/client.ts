/** Where a client finds the gate, and what it shows there. */
export interface Connection {
	/** `http://host:port`, without a slash at its end. */
	readonly server: string;
	/** The key, or a placeholder for it. It is safe to stand in any quotes: see `weaknessOf`. */
	readonly key: string;
	/** A model's name; it is safe to stand in any quotes: see `isModelName`. */
	readonly model: string;
	/** What an app signs with who is asking, or left out for a placeholder; as safe as the key. */
	readonly secret?: string;
}

/** Something to paste. */
export interface Snippet {
	/** What to do with it, in a sentence that a colon ends. */
	readonly lead: string;
	readonly language: "json" | "yaml" | "sh" | "js" | "python" | "text";
	readonly text: string;
}

/** All that a person needs to connect one client. */
export interface Guide {
	readonly snippets: readonly Snippet[];
	/** What is worth knowing besides, one paragraph each. */
	readonly notes: readonly string[];
}

/** A program that can be connected to the gate. */
export interface Client {
	/** What is written on the command line. */
	readonly name: string;
	readonly title: string;
	/** Where the form of its configuration was taken from, and how far it was tried. */
	readonly source: string;
	/** False for a client that shows something other than a key. */
	readonly sendsKey: boolean;
	render(connection: Connection): Guide;
}

/** The one prompt of all examples. */
export const greeting = "Hello!";

/** JSON as people write it. */
export function json(value: unknown): string {
	return JSON.stringify(value, undefined, 2);
}

/** Ollama's names: `qwen3:8b`, `hf.co/user/model:tag` (types/model.ParseName). */
export function isModelName(name: string): boolean {
	return /^[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}$/.test(name);
}

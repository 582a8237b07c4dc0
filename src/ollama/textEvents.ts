import type { ReplyFormat } from "./errors.ts";

/** How an event or a line says that it carries text. */
interface Mark {
	/**
	 * A member's name as JSON ends it. In a text its quote would have a backslash
	 * before it. The quote in front is left out: a search for a rarer byte takes
	 * half the time.
	 */
	readonly name: Buffer;
	/** The byte that its value begins with, */
	readonly opens: number;
	/** and the next one where there is nothing in it, as in the event behind the last text. */
	readonly empty: number | undefined;
}

const lf = 0x0a;
const quote = 0x22;
const brace = { opens: 0x7b, empty: 0x7d };
const delta = Buffer.from('delta":');
const nativeMark: Mark = {
	name: Buffer.from('done":'),
	// Of `false`.
	opens: 0x66,
	empty: undefined,
};
const marks: Partial<Record<ReplyFormat, ReadonlyMap<string, Mark>>> = {
	ndjson: new Map([
		["/api/chat", nativeMark],
		["/api/generate", nativeMark],
	]),
	sse: new Map([
		["/v1/chat/completions", { name: delta, ...brace }],
		["/v1/messages", { name: delta, ...brace }],
		["/v1/responses", { name: delta, opens: quote, empty: quote }],
		[
			"/v1/completions",
			{ name: Buffer.from('text":'), opens: quote, empty: quote },
		],
	]),
};

/** So many bytes, from a mark's first on, are enough to know it by. */
export const markBytes = 16;

/**
 * Counts the events or lines of a stream that carry text: about one for each
 * token. It looks at each byte once, by a search that is native.
 *
 * A line counts once, however many marks are in it: what a model hands to a tool
 * is no text in Ollama's own lines but JSON, with any members. Nothing else tells
 * the line's own mark from those, as other members may stand behind it
 * (`logprobs`, `tool_calls`; api/types.go, ChatResponse and GenerateResponse).
 */
export class TextEvents {
	readonly #mark: Mark | undefined;
	#passed = 0;
	/** The line that is going on has been counted. */
	#isCounted = false;

	constructor(path: string, format: ReplyFormat) {
		this.#mark = marks[format]?.get(path);
	}

	/**
	 * Takes note of the next bytes, in parts of any size, as long as `markBytes`
	 * more of the stream are readable behind each, if it has them.
	 */
	pass(bytes: Buffer, start: number, end: number, readable: number): void {
		this.#passed += this.#countIn(bytes, start, end, readable);
	}

	/** How many there are so far, with those in what comes behind all that has passed. */
	countWith(rest: Buffer, length: number): number {
		const isCounted = this.#isCounted;
		const count = this.#countIn(rest, 0, length, length);
		this.#isCounted = isCounted;
		return this.#passed + count;
	}

	/** Those whose mark begins within these places. */
	#countIn(
		bytes: Buffer,
		start: number,
		end: number,
		readable: number,
	): number {
		if (this.#mark === undefined) return 0;
		const { name, opens, empty } = this.#mark;
		let count = 0;
		let at = start;
		for (;;) {
			if (this.#isCounted) {
				at = bytes.indexOf(lf, at);
				if (at === -1 || at >= end) return count;
				this.#isCounted = false;
			}
			at = bytes.indexOf(name, at);
			if (at === -1 || at >= end) return count;
			at += name.length;
			// Servers other than Ollama may write a blank here.
			const valueAt = bytes[at] === 0x20 ? at + 1 : at;
			if (
				valueAt + 1 < readable &&
				bytes[valueAt] === opens &&
				bytes[valueAt + 1] !== empty
			) {
				count += 1;
				this.#isCounted = true;
			}
		}
	}
}

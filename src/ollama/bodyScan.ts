import { isUtf8 } from "node:buffer";

/** A value that stands at the top of a body, or in its `options`. */
export type Scalar = string | number | boolean | null;

/** What a scan found: the named fields, or why the body cannot be judged. */
export type ScanResult =
	| {
			readonly kind: "fields";
			/** `model`, `options.num_ctx`; an object or a list is `undefined` here. */
			readonly fields: ReadonlyMap<string, Scalar | undefined>;
	  }
	| { readonly kind: "unclear"; readonly message: string };

const maxDepth = 256;
/** A name written wholly in \u escapes is six times its length. */
const maxKeyBytes = 512;
const maxScalarBytes = 4096;

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;

/** What may come next. */
type Expecting =
	| "value"
	| "valueOrEnd"
	| "keyOrEnd"
	| "key"
	| "colon"
	| "commaOrEnd"
	| "nothing";

/**
 * Reads a JSON body in pieces, without building it, as Go's encoding/json
 * would, and refuses what Go would read differently from how it looks: Go
 * matches a field by any spelling that folds to its name, the last one wins,
 * and what follows the first value is ignored. So a field that matters may
 * stand there once, spelt as it is documented, and nothing may follow.
 *
 * Each piece costs time in proportion to its length; memory does not depend on
 * the body's.
 */
export class BodyScan {
	readonly #watched: ReadonlySet<string>;
	readonly #watchedOptions: ReadonlySet<string>;
	readonly #fields = new Map<string, Scalar | undefined>();
	/** One letter for each open container: `{` or `[`. */
	readonly #stack: number[] = [];
	#expecting: Expecting = "value";
	#problem: string | undefined;
	/** The field whose value comes next, if it is a watched one. */
	#field: string | undefined;
	#inOptions = false;
	/** Bytes of the string, number or word being read. */
	#token: Buffer[] = [];
	#tokenBytes = 0;
	#mode: "between" | "string" | "word" = "between";
	#stringIsKey = false;
	#escaped = false;
	/** Whether the token's bytes are wanted. */
	#keeping = false;
	/** Bytes of a UTF-8 character that a piece was cut in. */
	#utf8Rest: Buffer = Buffer.alloc(0);

	/** @param watched names of fields at the top that matter */
	constructor(
		watched: Iterable<string>,
		watchedOptions: Iterable<string> = [],
	) {
		this.#watched = new Set(watched);
		this.#watchedOptions = new Set(watchedOptions);
	}

	/** Reads the next piece. Returns false once the body is known to be refused. */
	push(piece: Buffer): boolean {
		if (this.#problem !== undefined) return false;
		this.#checkUtf8(piece);
		let at = 0;
		while (at < piece.length && this.#problem === undefined) {
			if (this.#mode === "string") at = this.#readString(piece, at);
			else if (this.#mode === "word") at = this.#readWord(piece, at);
			else at = this.#readBetween(piece, at);
		}
		return this.#problem === undefined;
	}

	/** Ends the body. */
	finish(): ScanResult {
		if (this.#problem === undefined && this.#mode === "word") this.#endWord();
		if (this.#problem === undefined && this.#utf8Rest.length > 0)
			this.#refuse("the body is not valid UTF-8");
		if (this.#problem === undefined && this.#expecting !== "nothing")
			this.#refuse("the body's JSON is not complete");
		return this.#problem === undefined
			? { kind: "fields", fields: this.#fields }
			: { kind: "unclear", message: this.#problem };
	}

	#refuse(message: string): void {
		this.#problem ??= message;
	}

	/** A character may be cut in two by a piece's end: up to three bytes wait for the next. */
	#checkUtf8(piece: Buffer): void {
		const whole =
			this.#utf8Rest.length === 0
				? piece
				: Buffer.concat([this.#utf8Rest, piece]);
		let end = whole.length;
		for (let back = 1; back <= Math.min(3, whole.length); back++) {
			const byte = whole[whole.length - back] ?? 0;
			if (byte < 0x80) break;
			if (byte >= 0xc0) {
				const needed = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : 2;
				if (needed > back) end = whole.length - back;
				break;
			}
		}
		if (!isUtf8(whole.subarray(0, end)))
			this.#refuse("the body is not valid UTF-8");
		this.#utf8Rest = Buffer.from(whole.subarray(end));
	}

	#readBetween(piece: Buffer, start: number): number {
		let at = start;
		for (; at < piece.length; at++) {
			const byte = piece[at] ?? 0;
			if (byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09)
				continue;
			switch (byte) {
				case quote:
					this.#beginString();
					return at + 1;
				case openBrace:
				case openBracket:
					this.#open(byte);
					break;
				case closeBrace:
				case closeBracket:
					this.#close(byte);
					break;
				case colon:
					if (this.#expecting !== "colon")
						this.#refuse("the body is not valid JSON");
					this.#expecting = "value";
					break;
				case comma:
					if (this.#expecting !== "commaOrEnd")
						this.#refuse("the body is not valid JSON");
					this.#expecting = this.#stack.at(-1) === openBrace ? "key" : "value";
					break;
				default:
					this.#beginWord(byte);
					return at;
			}
			if (this.#problem !== undefined) return at;
		}
		return at;
	}

	#takesValue(): boolean {
		if (this.#expecting === "value" || this.#expecting === "valueOrEnd")
			return true;
		this.#refuse(
			this.#expecting === "nothing"
				? "something follows the body's JSON"
				: "the body is not valid JSON",
		);
		return false;
	}

	#open(byte: number): void {
		if (!this.#takesValue()) return;
		if (this.#stack.length === 0 && byte !== openBrace) {
			this.#refuse("the body is not a JSON object");
			return;
		}
		if (this.#stack.length >= maxDepth) {
			this.#refuse(`the body nests deeper than ${maxDepth}`);
			return;
		}
		if (this.#field !== undefined) this.#fields.set(this.#field, undefined);
		if (this.#stack.length === 1)
			this.#inOptions = this.#field === "options" && byte === openBrace;
		this.#field = undefined;
		this.#stack.push(byte);
		this.#expecting = byte === openBrace ? "keyOrEnd" : "valueOrEnd";
	}

	#close(byte: number): void {
		const opened = this.#stack.pop();
		const fits =
			byte === closeBrace
				? opened === openBrace &&
					(this.#expecting === "keyOrEnd" || this.#expecting === "commaOrEnd")
				: opened === openBracket &&
					(this.#expecting === "valueOrEnd" ||
						this.#expecting === "commaOrEnd");
		if (!fits) {
			this.#refuse("the body is not valid JSON");
			return;
		}
		if (this.#stack.length === 1) this.#inOptions = false;
		this.#expecting = this.#stack.length === 0 ? "nothing" : "commaOrEnd";
	}

	#beginString(): void {
		this.#stringIsKey =
			this.#expecting === "key" || this.#expecting === "keyOrEnd";
		if (!this.#stringIsKey && !this.#takesValue()) return;
		if (this.#stack.length === 0) {
			this.#refuse("the body is not a JSON object");
			return;
		}
		this.#mode = "string";
		this.#escaped = false;
		this.#keeping = this.#stringIsKey
			? this.#isWatchedPlace()
			: this.#field !== undefined;
		this.#token = [];
		this.#tokenBytes = 0;
	}

	#isWatchedPlace(): boolean {
		return (
			this.#stack.length === 1 || (this.#stack.length === 2 && this.#inOptions)
		);
	}

	/** Long strings (an image in base64) are crossed by two searches, not byte by byte. */
	#readString(piece: Buffer, start: number): number {
		let at = start;
		let nextBackslash = -2;
		for (;;) {
			if (this.#escaped) {
				if (at >= piece.length) break;
				this.#escaped = false;
				at += 1;
			}
			const end = piece.indexOf(quote, at);
			if (nextBackslash < at && nextBackslash !== -1)
				nextBackslash = piece.indexOf(backslash, at);
			if (nextBackslash !== -1 && (end === -1 || nextBackslash < end)) {
				at = nextBackslash + 1;
				this.#escaped = true;
				continue;
			}
			if (end === -1) {
				at = piece.length;
				break;
			}
			this.#keep(piece, start, end);
			this.#mode = "between";
			this.#endString();
			return end + 1;
		}
		this.#keep(piece, start, piece.length);
		return piece.length;
	}

	#keep(piece: Buffer, start: number, end: number): void {
		if (!this.#keeping || end <= start) return;
		this.#tokenBytes += end - start;
		// Too long to be a name that matters; its end is still looked for.
		if (this.#tokenBytes <= maxScalarBytes)
			this.#token.push(Buffer.from(piece.subarray(start, end)));
	}

	#endString(): void {
		if (this.#stringIsKey) {
			this.#expecting = "colon";
			this.#field = this.#keeping ? this.#readKey() : undefined;
			return;
		}
		if (this.#field !== undefined) {
			const value =
				this.#tokenBytes <= maxScalarBytes
					? parseScalar(`"${Buffer.concat(this.#token)}"`)
					: undefined;
			if (typeof value === "string") this.#fields.set(this.#field, value);
			else this.#refuse(`the body's "${this.#field}" cannot be read`);
			this.#field = undefined;
		}
		this.#expecting = "commaOrEnd";
	}

	/** The watched field that this key is, or `undefined` if it is none. */
	#readKey(): string | undefined {
		if (this.#tokenBytes > maxKeyBytes) return undefined;
		const key = parseScalar(`"${Buffer.concat(this.#token)}"`);
		if (typeof key !== "string") {
			this.#refuse("the body is not valid JSON");
			return undefined;
		}
		const watched =
			this.#inOptions && this.#stack.length === 2
				? this.#watchedOptions
				: this.#watched;
		const folded = fold(key);
		if (!watched.has(folded)) return undefined;
		if (key !== folded) {
			this.#refuse(
				`the body has ${JSON.stringify(key)}, which Ollama takes for "${folded}"; write it as that`,
			);
			return undefined;
		}
		const field =
			watched === this.#watchedOptions && this.#stack.length === 2
				? `options.${key}`
				: key;
		if (this.#fields.has(field)) {
			this.#refuse(`the body has "${field}" twice`);
			return undefined;
		}
		return field;
	}

	#beginWord(byte: number): void {
		// A BOM is the commonest byte here that begins no JSON.
		if (this.#stack.length === 0 && byte === 0xef) {
			this.#refuse("the body begins with a byte order mark; send it without");
			return;
		}
		if (!this.#takesValue()) return;
		if (this.#stack.length === 0) {
			this.#refuse("the body is not a JSON object");
			return;
		}
		this.#mode = "word";
		this.#token = [];
		this.#tokenBytes = 0;
		this.#keeping = true;
	}

	/** A number, `true`, `false` or `null`: everything up to what can only follow it. */
	#readWord(piece: Buffer, start: number): number {
		let at = start;
		for (; at < piece.length; at++) {
			const byte = piece[at] ?? 0;
			const isWordByte =
				(byte >= 0x30 && byte <= 0x39) ||
				(byte >= 0x61 && byte <= 0x7a) ||
				byte === 0x2d ||
				byte === 0x2b ||
				byte === 0x2e ||
				byte === 0x45;
			if (!isWordByte) break;
		}
		this.#keep(piece, start, at);
		if (at < piece.length) this.#endWord();
		return at;
	}

	#endWord(): void {
		this.#mode = "between";
		const value =
			this.#tokenBytes > maxScalarBytes
				? undefined
				: parseScalar(Buffer.concat(this.#token).toString("latin1"));
		if (value === undefined) {
			this.#refuse("the body is not valid JSON");
			return;
		}
		if (this.#field !== undefined) this.#fields.set(this.#field, value);
		this.#field = undefined;
		this.#expecting = "commaOrEnd";
	}
}

function parseScalar(text: string): Scalar | undefined {
	try {
		return JSON.parse(text) as Scalar;
	} catch {
		return undefined;
	}
}

/**
 * A key as Go compares it (encoding/json/fold.go): letters fold to one case,
 * and two letters beyond ASCII fold into it, the long s and the Kelvin sign.
 */
function fold(key: string): string {
	return key.toLowerCase().replaceAll("\u017f", "s").replaceAll("\u212a", "k");
}

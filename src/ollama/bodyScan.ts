import { isUtf8 } from "node:buffer";
import {
	backslash,
	classOf,
	close,
	closeBrace,
	colon,
	comma,
	endsNumber,
	firstOfNumber,
	hexOf,
	indexOf,
	isNumberEnd,
	letter,
	letterU,
	literalOf,
	nearBytes,
	nextOfNumber,
	numeral,
	open,
	openBrace,
	other,
	quote,
	quotes,
	unescaped,
} from "./jsonTokens.ts";
import {
	aColon,
	commaOrEnd,
	crossPlain,
	key,
	keyOrEnd,
	maxDepth,
	Nesting,
	nothing,
	valueOrEnd,
} from "./plainJson.ts";
import {
	anyName,
	NameReader,
	type NameTable,
	type WatchedName,
	type WatchList,
} from "./watchedNames.ts";

/** A value that is at the top of a body, or in its `options`. */
export type Scalar = string | number | boolean | null;

/** What a scan found in a body that can be judged. */
export interface Found {
	/** `model`, `options.num_ctx`; an object or a list is `undefined` here. */
	readonly fields: ReadonlyMap<string, Scalar | undefined>;
	/** The values in the watched maps; what is not a string, or too long, is empty here. */
	readonly mapped: readonly string[];
	/** The first tool whose type begins with a watched one. */
	readonly toolType: string | undefined;
}

/** What a scan found, or why the body cannot be judged. */
export type ScanResult =
	| ({ readonly kind: "fields" } & Found)
	| { readonly kind: "unclear"; readonly message: string };

const noFields: ReadonlyMap<string, Scalar | undefined> = new Map();
const maxScalarBytes = 4096;
/** Values that the watched maps may have together. */
const maxMapped = 1024;

// What is being read.
const between = 0;
const inString = 1;
const inName = 2;
const inNumber = 3;
const inLiteral = 4;

// Where a container is, as far as that matters.
const elsewhere = 0;
const atTop = 1;
const inOptions = 2;
const inMap = 3;
const inTools = 4;
const inTool = 5;

/** Deeper in, all is elsewhere: the top, `tools`, one of them. */
const maxPlaces = 4;

// Why a value is wanted.
const unwanted = 0;
const asField = 1;
const asMapped = 2;
const asToolType = 3;

/**
 * Reads a JSON body in pieces, without building it, as Go's encoding/json
 * would, and refuses what Go would read differently from how it looks: Go
 * matches a field by any spelling that folds to its name, the last one wins,
 * and what follows the first value is ignored. So a field that matters may
 * stand there once, spelt as it is documented, and nothing may follow.
 *
 * Each piece costs time in proportion to its length, whatever is in it, and
 * memory does not depend on the body: nothing is kept but what is watched.
 */
export class BodyScan {
	readonly #watched: WatchList;
	readonly #fields = new Map<string, Scalar | undefined>();
	readonly #mapped: string[] = [];
	#toolType: string | undefined;
	#problem: string | undefined;

	#mode = between;
	readonly #nesting = new Nesting();
	/** The place of the innermost, and of those around it that can be anywhere but elsewhere. */
	#place = elsewhere;
	readonly #places = new Uint8Array(maxPlaces);

	/** The field whose value comes next, if it is a watched one. */
	#field: WatchedName | undefined;
	#wanted = unwanted;
	/** The bytes of a watched value, as they stand there. */
	#raw: Buffer | undefined;
	#rawBytes = 0;

	readonly #name = new NameReader();
	#nameIsKey = false;
	/** The last byte was a backslash. */
	#escaped = false;
	/** Digits that are still to come of a `\uXXXX`, and what they say so far. */
	#hexLeft = 0;
	#unit = 0;

	#number = 0;
	#literal = literalOf(0);
	#literalAt = 0;

	/** The next of each in this piece, from where it was looked for last. */
	#nextQuote = -1;
	#nextBackslash = -1;
	/** Bytes of a UTF-8 character that a piece was cut in. */
	#utf8Rest: Buffer | undefined;

	constructor(watched: WatchList) {
		this.#watched = watched;
	}

	/** Reads the next piece. Returns false once the body is known to be refused. */
	push(piece: Buffer): boolean {
		if (this.#problem !== undefined) return false;
		this.#checkUtf8(piece);
		this.#nextQuote = -1;
		this.#nextBackslash = -1;
		let at = 0;
		while (at < piece.length && this.#problem === undefined) {
			switch (this.#mode) {
				case between:
					at = this.#readBetween(piece, at);
					break;
				case inString:
					at = this.#readString(piece, at);
					break;
				case inName:
					at = this.#readName(piece, at);
					break;
				case inNumber:
					at = this.#readNumber(piece, at);
					break;
				default:
					at = this.#readLiteral(piece, at);
			}
		}
		return this.#problem === undefined;
	}

	/** The watched fields whose values have begun; nothing of a body that cannot be judged. */
	get fields(): ReadonlyMap<string, Scalar | undefined> {
		return this.#problem === undefined ? this.#fields : noFields;
	}

	/** Ends the body. */
	finish(): ScanResult {
		if (this.#problem === undefined && this.#utf8Rest !== undefined)
			this.#refuse("the body is not valid UTF-8");
		if (this.#problem === undefined && this.#nesting.expecting !== nothing)
			this.#refuse("the body's JSON is not complete");
		return this.#problem === undefined
			? {
					kind: "fields",
					fields: this.#fields,
					mapped: this.#mapped,
					toolType: this.#toolType,
				}
			: { kind: "unclear", message: this.#problem };
	}

	/**
	 * Reads another body, which is there whole: a scan can be used again and again.
	 * What was found in the one before is gone.
	 */
	readWhole(body: Buffer): ScanResult {
		this.#reset();
		this.push(body);
		return this.finish();
	}

	#reset(): void {
		this.#fields.clear();
		this.#mapped.length = 0;
		this.#toolType = undefined;
		this.#problem = undefined;
		this.#mode = between;
		this.#nesting.reset();
		this.#place = elsewhere;
		this.#field = undefined;
		this.#wanted = unwanted;
		this.#escaped = false;
		this.#hexLeft = 0;
		this.#utf8Rest = undefined;
	}

	#refuse(message: string): void {
		this.#problem ??= message;
	}

	#refuseSyntax(): void {
		this.#refuse("the body is not valid JSON");
	}

	/** A character may be cut in two by a piece's end: up to three bytes wait for the next. */
	#checkUtf8(piece: Buffer): void {
		const whole =
			this.#utf8Rest === undefined
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
		if (!isUtf8(end === whole.length ? whole : whole.subarray(0, end)))
			this.#refuse("the body is not valid UTF-8");
		this.#utf8Rest =
			end === whole.length ? undefined : Buffer.from(whole.subarray(end));
	}

	#readBetween(piece: Buffer, start: number): number {
		let at = start;
		for (;;) {
			at = crossPlain(
				piece,
				at,
				this.#nesting,
				this.#wanted === unwanted && this.#nesting.depth > 0,
				this.#namesHere(),
			);
			if (at >= piece.length) return at;
			const byte = piece[at] ?? 0;
			this.#readMark(byte, classOf[byte] ?? other);
			at += 1;
			if (this.#problem !== undefined || this.#mode !== between) return at;
		}
	}

	/** The names that matter as keys here; `undefined` where none does. */
	#namesHere(): NameTable | undefined {
		switch (this.#place) {
			case elsewhere:
				return undefined;
			case atTop:
				return this.#watched.fields;
			case inOptions:
				return this.#watched.options;
			case inTool:
				return this.#watched.toolFields;
			case inMap:
				return anyName;
			default:
				return undefined;
		}
	}

	/** A byte between tokens, the slow way. */
	#readMark(byte: number, kind: number): void {
		switch (kind) {
			case quotes:
				this.#beginString();
				break;
			case numeral:
				this.#beginNumber(byte);
				break;
			case letter:
				this.#beginLiteral(byte);
				break;
			case open:
				this.#open(byte === openBrace);
				break;
			case close:
				this.#close(byte === closeBrace);
				break;
			case colon:
			case comma:
				this.#refuseSyntax();
				break;
			default:
				this.#refuseByte(byte);
		}
	}

	/** A byte that begins no JSON. A byte order mark is the commonest. */
	#refuseByte(byte: number): void {
		if (this.#nesting.depth === 0 && byte === 0xef)
			this.#refuse("the body begins with a byte order mark; send it without");
		else if (this.#takesValue()) this.#refuseSyntax();
	}

	/** Whether a value may stand here; one at the top must be an object. */
	#takesValue(isObject = false): boolean {
		if (this.#nesting.expecting > valueOrEnd) {
			this.#refuse(
				this.#nesting.expecting === nothing
					? "something follows the body's JSON"
					: "the body is not valid JSON",
			);
			return false;
		}
		if (this.#nesting.depth === 0 && !isObject) {
			this.#refuse("the body is not a JSON object");
			return false;
		}
		return true;
	}

	#open(isObject: boolean): void {
		if (!this.#takesValue(isObject)) return;
		const nesting = this.#nesting;
		if (nesting.depth >= maxDepth) {
			this.#refuse(`the body nests deeper than ${maxDepth}`);
			return;
		}
		let place = elsewhere;
		if (this.#place !== elsewhere || nesting.depth === 0) {
			place = this.#placeInside(isObject);
			this.#noteContainer();
		}
		nesting.enter(isObject);
		if (place === elsewhere && nesting.depth < nesting.floor)
			nesting.floor = nesting.depth;
		this.#place = place;
		if (nesting.depth < maxPlaces) this.#places[nesting.depth] = place;
	}

	/** The place of a container that opens here. */
	#placeInside(isObject: boolean): number {
		if (this.#nesting.depth === 0) return atTop;
		if (this.#place === inTools && isObject) return inTool;
		if (this.#place !== atTop || this.#field === undefined) return elsewhere;
		const { name } = this.#field;
		if (name === "options") return isObject ? inOptions : elsewhere;
		if (name === "tools") return isObject ? elsewhere : inTools;
		return isObject && this.#watched.maps.has(name) ? inMap : elsewhere;
	}

	/** A wanted value turns out to be an object or a list. */
	#noteContainer(): void {
		if (this.#wanted === asField && this.#field !== undefined)
			this.#fields.set(this.#field.field, undefined);
		else if (this.#wanted === asMapped) this.#noteMapped("");
		this.#field = undefined;
		this.#wanted = unwanted;
	}

	#close(isObject: boolean): void {
		const nesting = this.#nesting;
		if (!nesting.mayLeave(isObject)) {
			this.#refuseSyntax();
			return;
		}
		nesting.leave();
		this.#place =
			nesting.depth >= nesting.floor
				? elsewhere
				: (this.#places[nesting.depth] ?? elsewhere);
	}

	#beginString(): void {
		this.#escaped = false;
		this.#nameIsKey =
			this.#nesting.expecting === key || this.#nesting.expecting === keyOrEnd;
		if (this.#nameIsKey) {
			const isWatched =
				this.#place === atTop ||
				this.#place === inOptions ||
				this.#place === inTool;
			this.#wanted = this.#place === inMap ? asMapped : unwanted;
			this.#mode = isWatched ? inName : inString;
			if (isWatched) this.#beginName();
			return;
		}
		if (!this.#takesValue()) return;
		this.#mode = this.#wanted > asField ? inName : inString;
		if (this.#mode === inName) this.#beginName();
		else this.#rawBytes = 0;
	}

	#beginName(): void {
		this.#name.clear();
		this.#hexLeft = 0;
	}

	/** A string of which nothing is wanted, or all of it, as it is there. */
	#readString(piece: Buffer, start: number): number {
		let at = start;
		if (this.#escaped) {
			this.#escaped = false;
			at += 1;
		}
		for (;;) {
			const near = Math.min(piece.length, at + nearBytes);
			for (; at < near; at++) {
				const byte = piece[at];
				if (byte === quote) {
					this.#keep(piece, start, at);
					this.#endString();
					return at + 1;
				}
				if (byte === backslash) at += 1;
			}
			if (at >= piece.length) {
				this.#escaped = at > piece.length;
				this.#keep(piece, start, piece.length);
				return piece.length;
			}
			// An image in base64 has megabytes without either.
			if (this.#nextQuote < at) this.#nextQuote = indexOf(piece, quote, at);
			if (this.#nextBackslash < at)
				this.#nextBackslash = indexOf(piece, backslash, at);
			at = Math.min(this.#nextQuote, this.#nextBackslash);
		}
	}

	#keep(piece: Buffer, start: number, end: number): void {
		if (this.#wanted !== asField) return;
		const before = this.#rawBytes;
		this.#rawBytes += end - start;
		// Too long to be a value that matters; its end is still looked for.
		if (this.#rawBytes > maxScalarBytes) return;
		if (this.#raw === undefined || this.#raw.length < this.#rawBytes) {
			const grown = Buffer.allocUnsafe(Math.max(256, 2 * this.#rawBytes));
			this.#raw?.copy(grown, 0, 0, before);
			this.#raw = grown;
		}
		piece.copy(this.#raw, before, start, end);
	}

	#endString(): void {
		this.#mode = between;
		if (this.#nameIsKey) {
			this.#nesting.expecting = aColon;
			return;
		}
		this.#endValue('"');
	}

	/** A value has come to its end; what was kept of it is between these marks. */
	#endValue(mark: "" | '"'): void {
		this.#nesting.expecting = commaOrEnd;
		if (this.#wanted === unwanted) return;
		if (this.#wanted === asMapped) this.#noteMapped("");
		if (this.#wanted === asField && this.#field !== undefined) {
			const text = this.#raw?.toString("utf8", 0, this.#rawBytes) ?? "";
			const scalar =
				this.#rawBytes > maxScalarBytes
					? undefined
					: mark === '"' && !escapedOrControl.test(text)
						? text
						: parseScalar(mark + text + mark);
			if (scalar === undefined)
				this.#refuse(`the body's "${this.#field.field}" cannot be read`);
			else this.#fields.set(this.#field.field, scalar);
		}
		this.#field = undefined;
		this.#wanted = unwanted;
	}

	#noteMapped(text: string): void {
		if (this.#mapped.length < maxMapped) this.#mapped.push(text);
		else this.#refuse(`the body names more than ${maxMapped} files`);
	}

	/** A key where one could matter, or a value of which only its text is wanted. */
	#readName(piece: Buffer, start: number): number {
		const name = this.#name;
		for (let at = start; at < piece.length; at++) {
			const byte = piece[at] ?? 0;
			if (this.#hexLeft > 0) {
				const digit = hexOf[byte] ?? -1;
				if (digit < 0) {
					this.#refuseSyntax();
					return at;
				}
				this.#unit = (this.#unit << 4) | digit;
				this.#hexLeft -= 1;
				if (this.#hexLeft === 0) name.addUnit(this.#unit);
			} else if (this.#escaped) {
				this.#escaped = false;
				const plain = unescaped[byte] ?? -1;
				if (byte === letterU) {
					this.#hexLeft = 4;
					this.#unit = 0;
				} else if (plain >= 0) name.add(plain);
				else {
					this.#refuseSyntax();
					return at;
				}
			} else if (byte === quote) {
				this.#mode = between;
				this.#endName();
				return at + 1;
			} else if (byte === backslash) this.#escaped = true;
			else if (byte < 0x20) {
				this.#refuseSyntax();
				return at;
			} else if (!name.add(byte) && this.#nameIsKey) {
				// Too long to be one that matters.
				this.#mode = inString;
				return at + 1;
			}
		}
		return piece.length;
	}

	#endName(): void {
		if (!this.#nameIsKey) {
			this.#nesting.expecting = commaOrEnd;
			if (this.#wanted === asMapped) this.#noteMapped(this.#name.text);
			else if (this.#name.beginsWith(this.#watched.toolTypes))
				this.#toolType ??= this.#name.text;
			this.#wanted = unwanted;
			return;
		}
		this.#nesting.expecting = aColon;
		if (this.#place === inTool) {
			// By whatever spelling, and each of several: any of them counts.
			if (this.#name.findFolded(this.#watched.toolFields) !== undefined)
				this.#wanted = asToolType;
			return;
		}
		const found =
			this.#place === inOptions
				? this.#name.findIn(this.#watched.options)
				: this.#name.findFolded(this.#watched.fields);
		if (found === undefined) return;
		if (!this.#name.isExactly(found))
			this.#refuse(
				`the body has ${JSON.stringify(this.#name.text)}, which Ollama takes for "${found.name}"; write it as that`,
			);
		else if (this.#fields.has(found.field))
			this.#refuse(`the body has "${found.field}" twice`);
		this.#field = found;
		this.#wanted = asField;
	}

	#beginNumber(byte: number): void {
		if (!this.#takesValue()) return;
		this.#mode = inNumber;
		this.#number = firstOfNumber(byte);
		this.#beginRaw(byte);
	}

	/** The first byte of a number or a literal has been read: it says which it is. */
	#beginRaw(byte: number): void {
		if (this.#wanted !== asField) return;
		this.#raw ??= Buffer.allocUnsafe(256);
		this.#raw[0] = byte;
		this.#rawBytes = 1;
	}

	#readNumber(piece: Buffer, start: number): number {
		let state = this.#number;
		for (let at = start; at < piece.length; at++) {
			const next = nextOfNumber(state, piece[at] ?? 0);
			if (next === endsNumber) {
				this.#keep(piece, start, at);
				this.#mode = between;
				if (isNumberEnd[state] === 1) this.#endValue("");
				else this.#refuseSyntax();
				return at;
			}
			state = next;
		}
		this.#number = state;
		this.#keep(piece, start, piece.length);
		return piece.length;
	}

	#beginLiteral(byte: number): void {
		if (!this.#takesValue()) return;
		this.#mode = inLiteral;
		this.#literal = literalOf(byte);
		this.#literalAt = 1;
		this.#beginRaw(byte);
	}

	#readLiteral(piece: Buffer, start: number): number {
		for (let at = start; at < piece.length; at++) {
			if (piece[at] !== this.#literal[this.#literalAt]) {
				this.#refuseSyntax();
				return at;
			}
			this.#literalAt += 1;
			if (this.#literalAt < this.#literal.length) continue;
			this.#keep(piece, start, at + 1);
			this.#mode = between;
			this.#endValue("");
			return at + 1;
		}
		this.#keep(piece, start, piece.length);
		return piece.length;
	}
}

/** What in a string is not what it looks like, or may not be there (RFC 8259, 7). */
// biome-ignore lint/suspicious/noControlCharactersInRegex: those are what is looked for
const escapedOrControl = /[\\\u0000-\u001f]/;

function parseScalar(text: string): Scalar | undefined {
	try {
		return JSON.parse(text) as Scalar;
	} catch {
		return undefined;
	}
}

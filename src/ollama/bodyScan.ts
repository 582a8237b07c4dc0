import { BodyFinds, Fields, type Found, unwanted } from "./bodyFinds.ts";
import { EscapedText, ended, malformed, tooLong } from "./escapedText.ts";
import {
	backslash,
	classOf,
	close,
	closeBrace,
	colon,
	comma,
	endsNumber,
	firstOfNumber,
	indexOf,
	isNumberEnd,
	letter,
	literalOf,
	nearBytes,
	nextOfNumber,
	numeral,
	open,
	openBrace,
	other,
	quote,
	quotes,
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
import { Utf8Check } from "./utf8Check.ts";
import type { WatchList } from "./watchedNames.ts";

/** What a scan found, or why the body cannot be judged. */
export type ScanResult =
	| ({ readonly kind: "fields" } & Found)
	| { readonly kind: "unclear"; readonly message: string };

const noFields = new Fields();
const notUtf8 = "the body is not valid UTF-8";

// What is being read.
const between = 0;
const inString = 1;
const inName = 2;
const inNumber = 3;
const inLiteral = 4;

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
	readonly #finds: BodyFinds;
	readonly #utf8: Utf8Check | undefined;
	#problem: string | undefined;

	#mode = between;
	readonly #nesting = new Nesting();

	readonly #name = new EscapedText();
	#nameIsKey = false;
	/** The last byte of a string was a backslash. */
	#escaped = false;

	#number = 0;
	#literal = literalOf(0);
	#literalAt = 0;

	/** The next of each in this piece, from where it was looked for last. */
	#nextQuote = -1;
	#nextBackslash = -1;

	/** @param isStrict whether bytes that are not UTF-8 are a fault; Go reads each of them as U+FFFD */
	constructor(watched: WatchList, isStrict = true) {
		this.#finds = new BodyFinds(watched);
		this.#utf8 = isStrict ? new Utf8Check() : undefined;
	}

	/** Reads the next piece. Returns false once the body is known to be refused. */
	push(piece: Buffer): boolean {
		if (this.#problem !== undefined) return false;
		if (this.#utf8?.accepts(piece) === false) this.#refuse(notUtf8);
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
	get fields(): Fields {
		return this.#problem === undefined ? this.#finds.fields : noFields;
	}

	/** Ends the body. */
	finish(): ScanResult {
		if (this.#utf8?.isWhole === false) this.#refuse(notUtf8);
		if (this.#problem === undefined && this.#nesting.expecting !== nothing)
			this.#refuse("the body's JSON is not complete");
		if (this.#problem !== undefined)
			return { kind: "unclear", message: this.#problem };
		const { fields, mapped, toolType } = this.#finds;
		return { kind: "fields", fields, mapped, toolType };
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
		this.#finds.reset();
		this.#utf8?.reset();
		this.#problem = undefined;
		this.#mode = between;
		this.#nesting.reset();
		this.#escaped = false;
	}

	/** The first thing that is wrong counts. */
	#refuse(message: string | undefined): void {
		this.#problem ??= message;
	}

	#refuseSyntax(): void {
		this.#refuse("the body is not valid JSON");
	}

	#readBetween(piece: Buffer, start: number): number {
		const nesting = this.#nesting;
		const finds = this.#finds;
		let at = start;
		for (;;) {
			at = crossPlain(
				piece,
				at,
				nesting,
				finds.wanted === unwanted && nesting.depth > 0,
				finds.names,
			);
			if (at >= piece.length) return at;
			const byte = piece[at] ?? 0;
			this.#readMark(byte, classOf[byte] ?? other);
			at += 1;
			if (this.#problem !== undefined || this.#mode !== between) return at;
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
		const finds = this.#finds;
		this.#refuse(finds.enter(isObject, nesting.depth));
		nesting.enter(isObject);
		if (finds.isElsewhere && nesting.depth < nesting.floor)
			nesting.floor = nesting.depth;
	}

	#close(isObject: boolean): void {
		const nesting = this.#nesting;
		if (!nesting.mayLeave(isObject)) {
			this.#refuseSyntax();
			return;
		}
		nesting.leave();
		this.#finds.leave(nesting.depth, nesting.floor);
	}

	#beginString(): void {
		this.#escaped = false;
		this.#nameIsKey =
			this.#nesting.expecting === key || this.#nesting.expecting === keyOrEnd;
		if (!this.#nameIsKey && !this.#takesValue()) return;
		const isName = this.#nameIsKey
			? this.#finds.beginKey()
			: this.#finds.beginString();
		this.#mode = isName ? inName : inString;
		if (isName) this.#name.begin();
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
					this.#finds.keepLast(piece, start, at);
					this.#endString();
					return at + 1;
				}
				if (byte === backslash) at += 1;
			}
			if (at >= piece.length) {
				this.#escaped = at > piece.length;
				this.#finds.keep(piece, start, piece.length);
				return piece.length;
			}
			// An image in base64 has megabytes without either.
			if (this.#nextQuote < at) this.#nextQuote = indexOf(piece, quote, at);
			if (this.#nextBackslash < at)
				this.#nextBackslash = indexOf(piece, backslash, at);
			at = Math.min(this.#nextQuote, this.#nextBackslash);
		}
	}

	#endString(): void {
		this.#mode = between;
		if (this.#nameIsKey) {
			this.#nesting.expecting = aColon;
			return;
		}
		this.#endValue('"');
	}

	#endValue(mark: "" | '"'): void {
		this.#nesting.expecting = commaOrEnd;
		if (this.#finds.wanted !== unwanted)
			this.#refuse(this.#finds.endValue(mark));
	}

	/** A key where one could matter, or a value of which only its text is wanted. */
	#readName(piece: Buffer, start: number): number {
		const name = this.#name;
		const end = name.read(piece, start, this.#nameIsKey);
		switch (name.state) {
			case ended:
				this.#mode = between;
				this.#endName();
				break;
			case malformed:
				this.#refuseSyntax();
				break;
			case tooLong:
				this.#mode = inString;
		}
		return end;
	}

	#endName(): void {
		if (this.#nameIsKey) {
			this.#nesting.expecting = aColon;
			this.#refuse(this.#finds.endKey(this.#name.text));
		} else {
			this.#nesting.expecting = commaOrEnd;
			this.#refuse(this.#finds.endText(this.#name.text));
		}
	}

	#beginNumber(byte: number): void {
		if (!this.#takesValue()) return;
		this.#mode = inNumber;
		this.#number = firstOfNumber(byte);
		this.#finds.beginRaw(byte);
	}

	#readNumber(piece: Buffer, start: number): number {
		let state = this.#number;
		for (let at = start; at < piece.length; at++) {
			const next = nextOfNumber(state, piece[at] ?? 0);
			if (next === endsNumber) {
				this.#finds.keep(piece, start, at);
				this.#mode = between;
				if (isNumberEnd[state] === 1) this.#endValue("");
				else this.#refuseSyntax();
				return at;
			}
			state = next;
		}
		this.#number = state;
		this.#finds.keep(piece, start, piece.length);
		return piece.length;
	}

	#beginLiteral(byte: number): void {
		if (!this.#takesValue()) return;
		this.#mode = inLiteral;
		this.#literal = literalOf(byte);
		this.#literalAt = 1;
		this.#finds.beginRaw(byte);
	}

	#readLiteral(piece: Buffer, start: number): number {
		for (let at = start; at < piece.length; at++) {
			if (piece[at] !== this.#literal[this.#literalAt]) {
				this.#refuseSyntax();
				return at;
			}
			this.#literalAt += 1;
			if (this.#literalAt < this.#literal.length) continue;
			this.#finds.keep(piece, start, at + 1);
			this.#mode = between;
			this.#endValue("");
			return at + 1;
		}
		this.#finds.keep(piece, start, piece.length);
		return piece.length;
	}
}

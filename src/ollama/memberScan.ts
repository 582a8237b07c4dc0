/** The members of an object that are wanted: by name, where to keep a value, or what is wanted of an object there. */
export type Wanted = ReadonlyMap<string, number | Wanted>;

/** A value that was wanted; a list or an object is told by its kind alone, and so is a text that is too long. */
export type Value = string | number | boolean | null | typeof present;

/** There is a value, and what it is was not kept. */
export const present: unique symbol = Symbol("present");

/** The longest text that is kept, as it is written; all wanted names are shorter, and so is a model's. */
const maxTextLength = 2048;
/** So many plain bytes are looked at one by one, then the next that is not is searched for. */
const plainRun = 32;

const quote = 0x22;
const backslash = 0x5c;
const comma = 0x2c;
const colon = 0x3a;
const openBrace = 0x7b;
const closeBrace = 0x7d;
const openBracket = 0x5b;
const closeBracket = 0x5d;

/** Where the scan is. */
const state = {
	/** Before the object. */
	start: 0,
	/** In a wanted object, at a name, a comma or its end. */
	member: 1,
	colon: 2,
	value: 3,
	/** In a name or a text. */
	text: 4,
	/** In a number or a literal. */
	scalar: 5,
	/** In a list or object of which nothing is wanted. */
	nested: 6,
	nestedText: 7,
	/** Behind the object. */
	whole: 8,
	broken: 9,
} as const;
type State = (typeof state)[keyof typeof state];

/** What a search stops at: the first two in a text, all outside of one, where a backslash cannot be. */
const marks = [
	quote,
	backslash,
	openBrace,
	closeBrace,
	openBracket,
	closeBracket,
] as const;

/** What changes the depth, or hides what would. */
const structural = new Uint8Array(256);
structural[quote] = 1;
for (const byte of [openBrace, openBracket]) structural[byte] = 2;
for (const byte of [closeBrace, closeBracket]) structural[byte] = 3;

/**
 * Finds some members of a JSON object that comes in pieces of any size, and
 * keeps nothing else: memory is constant, whatever the object's size, and the
 * work is a look at each byte. Of two members of one name the last counts.
 *
 * It is not a validator: of what is not JSON it only promises to find nothing whole
 * that is not closed.
 */
export class MemberScan {
	/** By the places that were asked for. */
	readonly #values: (Value | undefined)[] = [];
	readonly #root: Wanted;
	/** The wanted objects that the scan is in. */
	readonly #path: Wanted[] = [];
	#state: State = state.start;
	/** The text is a member's name. */
	#isName = false;
	/** What is wanted of the value that comes. */
	#wanted: number | Wanted | undefined;
	/** Of a name, a text or a scalar, a character a byte. */
	#text = "";
	/** The next byte of the text is behind a backslash. */
	#escaped = false;
	/** Where each mark is next in the bytes that are being looked at, or -1. */
	readonly #marksAt = [-1, -1, -1, -1, -1, -1];
	/** Lists and objects that are open and of which nothing is wanted. */
	#depth = 0;

	constructor(wanted: Wanted) {
		this.#root = wanted;
	}

	/** Whether anything but blanks has come. */
	get hasBegun(): boolean {
		return this.#state !== state.start;
	}

	/** Whether the object has been closed, with only blanks behind it. */
	get isWhole(): boolean {
		return this.#state === state.whole;
	}

	/** What is at a place, as far as the object has come. */
	value(place: number): Value | undefined {
		return this.#values[place];
	}

	/** Makes ready for another object. */
	reset(): void {
		// Behind blanks it still is.
		if (!this.hasBegun) return;
		this.#values.length = 0;
		this.#path.length = 0;
		this.#state = state.start;
		this.#isName = false;
		this.#text = "";
		this.#escaped = false;
		this.#depth = 0;
	}

	/** Takes the next bytes. */
	scan(bytes: Buffer, start: number, end: number): void {
		if (start === end) return;
		this.#marksAt.fill(-1);
		let at = start;
		while (at < end)
			switch (this.#state) {
				case state.text:
					at = this.#readText(bytes, at, end);
					break;
				case state.nested:
					at = this.#skipNested(bytes, at, end);
					break;
				case state.nestedText:
					at = this.#textEnd(bytes, at, end);
					if (at < end) this.#state = state.nested;
					at += 1;
					break;
				case state.scalar:
					at = this.#readScalar(bytes, at, end);
					break;
				case state.broken:
					return;
				default:
					if (this.#readStructure(bytes[at] ?? 0)) at += 1;
			}
	}

	/** Returns whether the byte has been taken; a scalar has no mark in front of it that could be. */
	#readStructure(byte: number): boolean {
		if (isBlank(byte)) return true;
		switch (this.#state) {
			case state.start:
				if (byte === openBrace) this.#enter(this.#root);
				else this.#state = state.broken;
				break;
			case state.member:
				if (byte === quote) this.#beginText(true);
				else if (byte === closeBrace) {
					this.#path.pop();
					if (this.#path.length === 0) this.#state = state.whole;
				} else if (byte !== comma) this.#state = state.broken;
				break;
			case state.colon:
				this.#state = byte === colon ? state.value : state.broken;
				break;
			case state.value:
				return this.#beginValue(byte);
			default:
				this.#state = state.broken;
		}
		return true;
	}

	#enter(wanted: Wanted): void {
		this.#path.push(wanted);
		this.#state = state.member;
	}

	#beginText(isName: boolean): void {
		this.#isName = isName;
		this.#text = "";
		this.#state = state.text;
	}

	#beginValue(byte: number): boolean {
		const wanted = this.#wanted;
		if (byte === quote) this.#beginText(false);
		else if (byte === openBrace && typeof wanted === "object")
			this.#enter(wanted);
		else if (byte === openBrace || byte === openBracket) {
			this.#keep(present);
			this.#depth = 1;
			this.#state = state.nested;
		} else if (byte === colon || endsScalar(byte)) this.#state = state.broken;
		else {
			this.#text = "";
			this.#state = state.scalar;
			return false;
		}
		return true;
	}

	#keep(value: Value): void {
		if (typeof this.#wanted === "number") this.#values[this.#wanted] = value;
	}

	#readText(bytes: Buffer, from: number, end: number): number {
		const stop = this.#textEnd(bytes, from, end);
		if (
			(this.#isName || typeof this.#wanted === "number") &&
			this.#text.length <= maxTextLength
		)
			this.#text += bytes.toString(
				"latin1",
				from,
				Math.min(stop, from + maxTextLength + 1),
			);
		if (stop === end) return end;
		if (this.#isName) {
			this.#wanted = this.#path.at(-1)?.get(nameOf(this.#text));
			this.#state = state.colon;
		} else {
			if (typeof this.#wanted === "number") this.#keep(decodeText(this.#text));
			this.#state = state.member;
		}
		return stop + 1;
	}

	/** The place of the quote that ends a text, or `end`. */
	#textEnd(bytes: Buffer, from: number, end: number): number {
		let at = from;
		if (this.#escaped) {
			this.#escaped = false;
			at += 1;
		}
		while (at < end) {
			const runEnd = Math.min(at + plainRun, end);
			let byte: number | undefined;
			while (at < runEnd) {
				byte = bytes[at];
				if (byte === quote) return at;
				if (byte === backslash) break;
				at += 1;
			}
			if (byte === backslash) at += 2;
			else if (at < end) at = this.#nextOf(2, bytes, at, end);
		}
		this.#escaped = at > end;
		return end;
	}

	#skipNested(bytes: Buffer, from: number, end: number): number {
		let at = from;
		let run = 0;
		while (at < end) {
			const kind = structural[bytes[at] ?? 0];
			if (kind === 0) {
				at += 1;
				if (++run < plainRun) continue;
				run = 0;
				at = this.#nextOf(marks.length, bytes, at, end);
				continue;
			}
			at += 1;
			run = 0;
			if (kind === 1) {
				at = this.#textEnd(bytes, at, end);
				if (at === end) {
					this.#state = state.nestedText;
					break;
				}
				at += 1;
			} else if (kind === 2) this.#depth += 1;
			else if (--this.#depth === 0) {
				this.#state = state.member;
				break;
			}
		}
		return at;
	}

	/** Where the next of the first so many marks is, or `end`. Each is searched for again only once it has been passed. */
	#nextOf(count: number, bytes: Buffer, from: number, end: number): number {
		let next = end;
		for (let index = 0; index < count; index++) {
			let found = this.#marksAt[index] ?? -1;
			if (found < from) {
				found = bytes.indexOf(marks[index] ?? 0, from);
				// What follows `end` may be older.
				if (found === -1 || found > end) found = end;
				this.#marksAt[index] = found;
			}
			if (found < next) next = found;
		}
		return next;
	}

	#readScalar(bytes: Buffer, from: number, end: number): number {
		let at = from;
		while (at < end && !endsScalar(bytes[at] ?? 0)) at += 1;
		if (typeof this.#wanted === "number" && this.#text.length <= maxCountDigits)
			this.#text += bytes.toString(
				"latin1",
				from,
				Math.min(at, from + maxCountDigits + 1),
			);
		if (at === end) return end;
		if (typeof this.#wanted === "number") this.#keep(readScalar(this.#text));
		this.#state = state.member;
		return at;
	}
}

const maxCountDigits = 15;

/** Numbers other than counts, and what is not JSON, are only present. */
function readScalar(text: string): Value {
	if (text === "true") return true;
	if (text === "false") return false;
	if (text === "null") return null;
	return /^\d{1,15}$/.test(text) ? Number(text) : present;
}

/** Whether a byte is one of JSON's blanks. */
export function isBlank(byte: number): boolean {
	return byte === 0x20 || byte === 0x0a || byte === 0x0d || byte === 0x09;
}

function endsScalar(byte: number): boolean {
	return (
		byte === comma ||
		byte === closeBrace ||
		byte === closeBracket ||
		isBlank(byte)
	);
}

/** A name that is wanted has none but plain letters, however it is written. */
function nameOf(written: string): string {
	if (!written.includes("\\")) return written;
	const name = decodeText(written);
	return name === present ? "" : name;
}

/** @param written what is between the quotes, a character a byte */
function decodeText(written: string): string | typeof present {
	if (written.length > maxTextLength) return present;
	const text = Buffer.from(written, "latin1").toString("utf8");
	if (!text.includes("\\")) return text;
	try {
		return JSON.parse(`"${text}"`) as string;
	} catch {
		return present;
	}
}
